import { afterAll } from "vitest";
import { describeEngineFeatures } from "../suites/engineFeatures.ts";
import { NodeThreads } from "./nodeThreads.ts";
import { openWasm } from "./openWasm.ts";

const threads = await NodeThreads.create();
afterAll(() => threads.dispose());

describeEngineFeatures("WASM, exact, one thread", () => openWasm("exact"));
describeEngineFeatures("WASM, fast, three threads", () => threads.open(3), { blockSize: 8 });
