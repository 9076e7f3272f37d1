import type { QuireErrorCode } from "../errors.ts";
import type { AdapterSummary } from "../worker/protocol.ts";

/** What this page offers to Quire. */
export interface Support {
  /** True if `createEngine` can work here. */
  readonly ok: boolean;
  /** Why not; empty if `ok`. */
  readonly reasons: readonly { readonly code: QuireErrorCode; readonly message: string }[];
  /** The GPU, or the software that stands in for it (`isFallback`); null where there is none. */
  readonly adapter: AdapterSummary | null;
  /** WebGPU limits of the adapter by name, in the units of the WebGPU specification. */
  readonly limits: Readonly<Record<string, number>>;
  /** Optional WebGPU features that the adapter has, for instance `shader-f16`, `subgroups`. */
  readonly features: readonly string[];
}

/** Limits that Quire reads, as names of GPUSupportedLimits. */
const LIMIT_NAMES = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
] as const;

const NO_ADAPTER = { ok: false, adapter: null, limits: {}, features: [] } as const;

/** Says whether an engine can run on this page, and why not. Never rejects; works in Node too. */
export async function checkSupport(): Promise<Support> {
  const reason = missingPlatform();
  if (reason !== undefined) return { ...NO_ADAPTER, reasons: [reason] };
  let adapter: GPUAdapter | null;
  try {
    adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    const message = `The browser failed to look for a GPU adapter: ${String(error)}.`;
    return { ...NO_ADAPTER, reasons: [{ code: "webgpu-unavailable", message }] };
  }
  if (adapter === null) {
    const message =
      "The browser has WebGPU but offers no adapter: the GPU or its driver is on the browser's " +
      "block list, or the system has none. Update the driver or look at the browser's GPU page.";
    return { ...NO_ADAPTER, reasons: [{ code: "webgpu-unavailable", message }] };
  }
  const { info, limits } = adapter;
  return {
    ok: true,
    reasons: [],
    adapter: {
      vendor: info.vendor,
      architecture: info.architecture,
      description: info.description,
      isFallback: info.isFallbackAdapter ?? false,
    },
    limits: Object.fromEntries(LIMIT_NAMES.map((name) => [name, Number(limits[name])])),
    features: [...adapter.features].sort(),
  };
}

function missingPlatform(): Support["reasons"][number] | undefined {
  if (typeof Worker === "undefined" || typeof navigator === "undefined") {
    const message = "This is no browser page: Quire needs Worker and navigator.gpu.";
    return { code: "webgpu-unavailable", message };
  }
  if (navigator.gpu !== undefined) return undefined;
  const message = globalThis.isSecureContext
    ? "The browser has no WebGPU (navigator.gpu is missing). Use a current browser, or turn WebGPU on in its settings."
    : "The page is no secure context, so the browser hides WebGPU. Serve it over https or from localhost.";
  return { code: "webgpu-unavailable", message };
}
