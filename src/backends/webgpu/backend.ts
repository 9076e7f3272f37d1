import { QuireError } from "../../errors.ts";
import type { AdapterSummary, Backend, PlanBuilder, PlanSpec } from "../ops.ts";
import { type DeviceOptions, openDevice } from "./device.ts";
import { KernelCache } from "./kernel.ts";
import { type BufferLimits, bufferLimits } from "./limits.ts";
import { LINEAR_TOKENS, type LinearTokens } from "./linear.ts";
import { WebGpuPlanBuilder } from "./planBuilder.ts";

export interface WebGpuOptions extends DeviceOptions {
  /** Default: the browser's. */
  readonly gpu?: GPU;
  /** Bindings larger than this are not made, whatever the adapter allows; default: its limit. Bytes. */
  readonly maxBindingBytes?: number;
  /** Variants of the linear kernels that steps may use, ascending; default: all, which must give the same bits. */
  readonly linearTokens?: readonly LinearTokens[];
}

/** Opens WebGPU. Throws `webgpu-unavailable` with the reason and what to do. */
export async function createWebGpuBackend(options: WebGpuOptions = {}): Promise<Backend> {
  const { device, adapter } = await openDevice(options.gpu ?? browserGpu(), options);
  const limits = bufferLimits(device);
  const { maxBindingBytes = limits.maxBindingBytes, linearTokens = LINEAR_TOKENS } = options;
  return new WebGpuBackend(device, adapter, { ...limits, maxBindingBytes }, linearTokens);
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
  readonly #linearTokens: readonly LinearTokens[];
  readonly #kernels: KernelCache;
  #isDisposed = false;

  constructor(
    device: GPUDevice,
    adapter: AdapterSummary,
    limits: BufferLimits,
    linearTokens: readonly LinearTokens[],
  ) {
    this.#limits = limits;
    this.#linearTokens = linearTokens;
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
    return new WebGpuPlanBuilder(
      this.#device,
      this.#kernels,
      this.#limits,
      spec,
      this.#linearTokens,
    );
  }

  dispose(): void {
    this.#isDisposed = true;
    this.#device.destroy();
  }
}
