import type { Backend } from "../backends/ops.ts";
import { createWebGpuBackend } from "../backends/webgpu/backend.ts";
import { checkNumerics } from "./numerics.ts";
import { serve } from "./serve.ts";

// The worker script. It does nothing until a page connects.
serve(self, { createBackend });

/** WebGPU, on an adapter that computes right. */
async function createBackend(): Promise<Backend> {
  const backend = await createWebGpuBackend();
  try {
    await checkNumerics(backend);
    return backend;
  } catch (error) {
    backend.dispose();
    throw error;
  }
}
