import { QuireError, throwIfAborted } from "../../errors.ts";
import type { Backend } from "../ops.ts";
import { compileKernels } from "./kernelModule.ts";
import type { WasmBackendOptions } from "./options.ts";
import type { WasmPlan } from "./plan.ts";
import { WasmPlanBuilder } from "./planBuilder.ts";

/**
 * The op interface in WebAssembly SIMD: everything in one memory, steps run on the caller's thread
 * and on others beside it. The caller must be a worker: steps block it. Throws `wasm-unavailable`.
 */
export async function createWasmBackend(
  options: WasmBackendOptions,
  signal?: AbortSignal,
): Promise<Backend> {
  const kernels = await compileKernels(options.simd, options.threads > 1);
  throwIfAborted(signal, "Starting the WASM back end");
  const plans: WasmPlan[] = [];
  let isDisposed = false;
  return {
    name: "wasm",
    precision: options.precision,
    threads: options.threads,
    simd: kernels.simd,
    adapter: null,
    kernels: null,
    lost: new Promise(() => {}), // there is no device to lose
    createPlanBuilder(spec) {
      if (isDisposed) throw new QuireError("disposed", "The WASM back end was disposed.");
      return new WasmPlanBuilder(spec, { ...options, kernels }, (plan) => plans.push(plan));
    },
    dispose() {
      isDisposed = true;
      for (const plan of plans) plan.dispose();
    },
  };
}
