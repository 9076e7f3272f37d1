import { QuireError } from "../../errors.ts";
import type { AdapterSummary } from "../ops.ts";

/** A device with the limits that Quire asks for, and who made it. */
export interface OpenDevice {
  readonly device: GPUDevice;
  readonly adapter: AdapterSummary;
}

/** What Quire asks for, as far as the adapter has it. Everything works with WebGPU's defaults too. */
const WANTED_LIMITS = {
  maxStorageBufferBindingSize: 2 ** 31,
  maxBufferSize: 2 ** 32,
} as const;

export interface DeviceOptions {
  /** False: a software adapter is refused as if there were none. Default true. */
  readonly allowFallback?: boolean;
}

/**
 * Opens a device of `gpu`. Throws `webgpu-unavailable` if there is no adapter or device.
 * No optional feature is needed or asked for.
 */
export async function openDevice(gpu: GPU, options: DeviceOptions = {}): Promise<OpenDevice> {
  const adapter = await requestAdapter(gpu);
  if (!adapter) {
    throw new QuireError(
      "webgpu-unavailable",
      "WebGPU found no adapter: the GPU or its driver is not supported by this browser, or is blocked. Update the driver, or use another browser.",
    );
  }
  const summary = summarise(adapter);
  const { allowFallback = true } = options;
  if (summary.isFallback && !allowFallback) {
    const name = nameOf(summary);
    const which = name === "" ? "" : ` (${name})`;
    throw new QuireError("webgpu-unavailable", `WebGPU offers only a software adapter${which}.`);
  }
  const requiredLimits: Record<string, number> = {};
  for (const [name, wanted] of Object.entries(WANTED_LIMITS)) {
    requiredLimits[name] = Math.min(adapter.limits[name as keyof typeof WANTED_LIMITS], wanted);
  }
  try {
    return {
      device: await adapter.requestDevice({ label: "quire", requiredLimits }),
      adapter: summary,
    };
  } catch (cause) {
    throw new QuireError(
      "webgpu-unavailable",
      `WebGPU gave no device of the adapter "${nameOf(summary)}": ${String(cause)}. Reload the page or restart the browser.`,
      {},
      { cause },
    );
  }
}

function nameOf({ vendor, architecture, description }: AdapterSummary): string {
  return [vendor, architecture, description].filter((word) => word !== "").join(" ");
}

async function requestAdapter(gpu: GPU): Promise<GPUAdapter | null> {
  try {
    return await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (cause) {
    throw new QuireError(
      "webgpu-unavailable",
      `WebGPU failed to look for an adapter: ${String(cause)}. Reload the page or restart the browser.`,
      {},
      { cause },
    );
  }
}

/** As earlier versions of WebGPU have it: `info` may be missing, and the adapter itself says that it is software. */
interface EarlyAdapter {
  readonly info?: Partial<GPUAdapterInfo>;
  readonly isFallbackAdapter?: boolean;
}

function summarise({ info = {}, isFallbackAdapter = false }: EarlyAdapter): AdapterSummary {
  const { vendor = "", architecture = "", description = "" } = info;
  const isFallback = info.isFallbackAdapter ?? isFallbackAdapter;
  return { vendor, architecture, description, isFallback };
}
