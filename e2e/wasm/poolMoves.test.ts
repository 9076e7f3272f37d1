import { afterAll } from "vitest";
import { describePoolMoves } from "../suites/poolMoves.ts";
import { NodeThreads } from "./nodeThreads.ts";
import { openWasm } from "./openWasm.ts";

const threads = await NodeThreads.create();
afterAll(() => threads.dispose());

describePoolMoves("WASM, exact, relaxed SIMD", () => openWasm("exact", "relaxed"));
describePoolMoves("WASM, fast, plain SIMD", () => openWasm("fast", "plain"));
describePoolMoves("WASM, fast, three threads", () => threads.open(3));
