import { create, globals } from "webgpu";
import type { Backend } from "../../src/backends/ops.ts";
import { createWebGpuBackend, type WebGpuOptions } from "../../src/backends/webgpu/backend.ts";
import type { KernelFamily } from "../../src/backends/webgpu/kernelChoice.ts";
import { QuireError } from "../../src/errors.ts";
import { compileAtFirstUse } from "./lazyPipelines.ts";

/** The software Vulkan driver that this process tests, as the vitest project says. */
export const testedIcd = process.env["QUIRE_ICD"] === "lavapipe" ? "lavapipe" : "swiftshader";

/** Both are tested on each driver, whichever it would get. */
export const FAMILIES: readonly KernelFamily[] = ["flat", "workgroup"];

// Dawn reads the environment once and the GPU object must outlive its devices: one for the process.
let gpu: GPU | undefined;

/** Dawn on the tested driver, which it finds by VK_ICD_FILENAMES. */
export function openGpu(): GPU {
  if (!process.env["VK_ICD_FILENAMES"]) {
    throw new QuireError(
      "webgpu-unavailable",
      "VK_ICD_FILENAMES names no driver. The vitest projects gpu:swiftshader and gpu:lavapipe set it.",
    );
  }
  if (gpu === undefined) {
    Object.assign(globalThis, globals);
    gpu = create([]);
  }
  return gpu;
}

/**
 * The back end on the tested driver, on a device held to the default limits, with no features. Pipelines are
 * compiled when a step first needs them: tests use a part of them, and software drivers take their time.
 */
export function openBackend(options: Omit<WebGpuOptions, "gpu"> = {}): Promise<Backend> {
  const real = openGpu();
  const gpu = {
    requestAdapter: async () => {
      const adapter = await real.requestAdapter();
      if (adapter) {
        const { requestDevice } = adapter;
        adapter.requestDevice = async () => {
          const device = await requestDevice.call(adapter, { label: testedIcd });
          compileAtFirstUse(device);
          return device;
        };
      }
      return adapter;
    },
  };
  return createWebGpuBackend({ ...options, gpu: gpu as GPU });
}

/** A device with the default limits and no features, which is the least that a browser offers. */
export async function openDevice(): Promise<GPUDevice> {
  const adapter = await openGpu().requestAdapter();
  if (adapter === null) {
    const driver = process.env["VK_ICD_FILENAMES"];
    throw new QuireError("webgpu-unavailable", `Dawn found no adapter with ${driver}.`);
  }
  return await adapter.requestDevice({ label: testedIcd });
}
