import { setFlagsFromString } from "node:v8";
import type { Backend } from "../../src/backends/ops.ts";
import { createWasmBackend } from "../../src/backends/wasm/backend.ts";
import type { WasmBackendOptions } from "../../src/backends/wasm/options.ts";
import { invariant } from "../../src/errors.ts";

// Node 20 has relaxed SIMD behind a flag; it must be set before the first module is compiled.
setFlagsFromString("--experimental-wasm-relaxed-simd");

/** The WASM back end in Node, on one thread. */
export async function openWasm(
  precision: WasmBackendOptions["precision"],
  simd: "relaxed" | "plain" = "relaxed",
): Promise<Backend> {
  const backend = await createWasmBackend({
    precision,
    simd: simd === "plain" ? "plain" : "auto",
    threads: 1,
    openThreads: () => Promise.reject(new Error("One thread needs no other.")),
  });
  invariant(backend.simd === simd, `Node compiles ${backend.simd} SIMD instead of ${simd}.`);
  return backend;
}
