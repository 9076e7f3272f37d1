import { QuireError } from "../../errors.ts";
import type { AdapterSummary, Backend, PlanBuilder, PlanSpec } from "../ops.ts";
import { type DeviceOptions, openDevice } from "./device.ts";
import { KernelCache } from "./kernel.ts";
import { familyFor, type KernelChoice, LINEAR_TOKENS } from "./kernelChoice.ts";
import { type BufferLimits, bufferLimits } from "./limits.ts";
import { WebGpuPlanBuilder } from "./planBuilder.ts";

export interface WebGpuOptions extends DeviceOptions {
  /** Default: the browser's. */
  readonly gpu?: GPU;
  /** Bindings larger than this are not made, whatever the adapter allows; default: its limit. Bytes. */
  readonly maxBindingBytes?: number;
  /** Default: the family for the adapter, and all variants, which must give the same bits. */
  readonly kernels?: Partial<KernelChoice>;
}

/** Opens WebGPU. Throws `webgpu-unavailable` with the reason and what to do. */
export async function createWebGpuBackend(options: WebGpuOptions = {}): Promise<Backend> {
  const { device, adapter } = await openDevice(options.gpu ?? browserGpu(), options);
  const limits = bufferLimits(device);
  const { maxBindingBytes = limits.maxBindingBytes } = options;
  const choice = { family: familyFor(adapter), linearTokens: LINEAR_TOKENS, ...options.kernels };
  return new WebGpuBackend(device, adapter, { ...limits, maxBindingBytes }, choice);
}

function browserGpu(): GPU {
  if (typeof navigator !== "undefined" && navigator.gpu) return navigator.gpu;
  const isInsecure = typeof isSecureContext !== "undefined" && !isSecureContext;
  throw new QuireError(
    "webgpu-unavailable",
    isInsecure
      ? "WebGPU needs a secure context: serve the page over https or from localhost."
      : "This browser has no WebGPU (navigator.gpu). Update it, or turn WebGPU on in its settings.",
  );
}

class WebGpuBackend implements Backend {
  readonly name = "webgpu";
  readonly precision = "exact";
  readonly threads = 1;
  readonly simd = null;
  readonly adapter: AdapterSummary;
  readonly lost: Promise<Error>;
  readonly #device: GPUDevice;
  readonly #limits: BufferLimits;
  readonly kernels: string;
  readonly #choice: KernelChoice;
  readonly #kernels: KernelCache;
  #isDisposed = false;

  constructor(
    device: GPUDevice,
    adapter: AdapterSummary,
    limits: BufferLimits,
    choice: KernelChoice,
  ) {
    this.#limits = limits;
    this.#choice = choice;
    this.kernels = `${choice.family}, rows by ${choice.linearTokens.join(", ")}`;
    this.#device = device;
    this.#kernels = new KernelCache(device);
    this.adapter = adapter;
    this.lost = new Promise((resolve) => {
      void device.lost.then(({ message }) => {
        if (this.#isDisposed) return;
        resolve(new QuireError("device-lost", `The GPU device was lost: ${message}`));
      });
      device.addEventListener("uncapturederror", ({ error }) => {
        const code = error instanceof GPUOutOfMemoryError ? "out-of-memory" : "internal";
        resolve(new QuireError(code, `WebGPU reported an error: ${error.message}`));
      });
    });
  }

  createPlanBuilder(spec: PlanSpec): PlanBuilder {
    return new WebGpuPlanBuilder(this.#device, this.#kernels, this.#limits, spec, this.#choice);
  }

  dispose(): void {
    this.#isDisposed = true;
    this.#device.destroy();
  }
}
