import { QuireError, throwIfAborted } from "../../errors.ts";
import type { Backend } from "../ops.ts";
import { compileKernels } from "./kernelModule.ts";
import type { WasmPlan } from "./plan.ts";
import { WasmPlanBuilder } from "./planBuilder.ts";

export interface WasmBackendOptions {
  /** fast: activations in 8 bits where weights have 8 or fewer. exact: in 32 bits. */
  readonly precision: "fast" | "exact";
  /** auto: relaxed SIMD where there is one. The same bits either way. */
  readonly simd: "auto" | "plain";
  /** Threads in all, the caller's included; 1 where memory cannot be shared. */
  readonly threads: number;
  /** Ports of freshly started thread workers, one each; not called for threads = 1. */
  readonly openThreads: (count: number, signal?: AbortSignal) => Promise<readonly MessagePort[]>;
}

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
