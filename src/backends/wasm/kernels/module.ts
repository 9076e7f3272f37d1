import * as w from "wasmati";
import type { Wasm } from "./emit.ts";
import { defineRun } from "./run.ts";

/** Which instructions a module may use: relaxed SIMD, or SIMD128 alone. */
export type Simd = "relaxed" | "plain";

/** Everything that the back end runs, in the order of the function table. */
export function defineKernels(_simd: Simd): readonly Wasm[] {
  return [];
}

/** A module's bytes and the names of its kernels. The memory comes from outside and is shared. */
export function emitModule(kernels: readonly Wasm[]): Uint8Array<ArrayBuffer> {
  const run = defineRun(kernels);
  const memory = w.importMemory({ min: 1, max: 65536, shared: true }, {} as WebAssembly.Memory);
  return w.Module({ exports: { run: run.func }, memory }).toBytes() as Uint8Array<ArrayBuffer>;
}
