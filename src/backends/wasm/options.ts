import type { KernelModules } from "./kernelModule.ts";

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

/** What plans are built with. */
export interface BuilderContext
  extends Pick<WasmBackendOptions, "precision" | "threads" | "openThreads"> {
  readonly kernels: KernelModules;
}
