import { compileKernels } from "../../../src/backends/wasm/kernelModule.ts";
import type { BuilderContext } from "../../../src/backends/wasm/options.ts";
import type { BenchmarkConfig } from "../benchmark.ts";

/** Set up as an engine sets itself up in this page, from the same options. */
export async function openKernels({
  precision = "fast",
  simd = "auto",
  threads = Math.min(navigator.hardwareConcurrency, 8),
}: BenchmarkConfig["engine"]): Promise<BuilderContext> {
  const numThreads = self.crossOriginIsolated ? threads : 1;
  const kernels = await compileKernels(simd, numThreads > 1);
  return { precision, threads: numThreads, kernels, openThreads };
}

/** They end with the worker that calls it. */
async function openThreads(count: number): Promise<readonly MessagePort[]> {
  return Array.from({ length: count }, () => {
    const worker = new Worker(new URL("./thread.ts", import.meta.url), { type: "module" });
    const { port1, port2 } = new MessageChannel();
    worker.postMessage(port2, [port2]);
    return port1;
  });
}
