import { existsSync } from "node:fs";
import { create, globals } from "webgpu";
import type { Backend } from "../../src/backends/ops.ts";
import { createWebGpuBackend, type WebGpuOptions } from "../../src/backends/webgpu/backend.ts";
import { QuireError } from "../../src/errors.ts";
import { compileAtFirstUse } from "./lazyPipelines.ts";

/** Software Vulkan drivers that the kernels are tested on, through Dawn in Node. */
export const icdFiles = {
  swiftshader: "/usr/lib/chromium/vk_swiftshader_icd.json",
  lavapipe: "/usr/share/vulkan/icd.d/lvp_icd.json",
} as const;

export type Icd = keyof typeof icdFiles;

/** The driver that this process tests: QUIRE_ICD, or swiftshader. */
export const testedIcd: Icd = process.env["QUIRE_ICD"] === "lavapipe" ? "lavapipe" : "swiftshader";

// Dawn reads the environment once and the GPU object must outlive its devices: one for the process.
let gpu: GPU | undefined;

/** Dawn on the tested driver. */
export function openGpu(icd: Icd = testedIcd): GPU {
  if (!existsSync(icdFiles[icd])) {
    throw new QuireError("webgpu-unavailable", `${icdFiles[icd]} is missing: install ${icd}.`);
  }
  if (gpu === undefined) {
    process.env["VK_ICD_FILENAMES"] = icdFiles[icd];
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
export async function openDevice(icd: Icd = testedIcd): Promise<GPUDevice> {
  const adapter = await openGpu(icd).requestAdapter();
  if (adapter === null) {
    throw new QuireError("webgpu-unavailable", `Dawn found no adapter with ${icdFiles[icd]}.`);
  }
  return await adapter.requestDevice({ label: icd });
}
