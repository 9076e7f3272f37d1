import type { QuireErrorCode } from "../errors.ts";
import type { AdapterSummary } from "../worker/protocol.ts";
import { type WasmSupport, wasmSupport } from "./wasmSupport.ts";

/** What this page offers to Quire. */
export interface Support {
  /** True if `createEngine` can work here without further options. */
  readonly ok: boolean;
  /**
   * What `backend: "auto"` comes to, as far as can be told before a device is opened and tried; null
   * where there is neither.
   */
  readonly backend: "webgpu" | "wasm" | null;
  /** Why `auto` would not take a back end, one for each such: `webgpu-unavailable`, `wasm-unavailable`. */
  readonly reasons: readonly SupportReason[];
  /** The GPU, or the software that stands in for it (`isFallback`); null where there is none. */
  readonly adapter: AdapterSummary | null;
  /** WebGPU limits of the adapter by name, in the units of the WebGPU specification. */
  readonly limits: Readonly<Record<string, number>>;
  /** Optional WebGPU features that the adapter has, for instance `shader-f16`, `subgroups`. */
  readonly features: readonly string[];
  readonly wasm: WasmSupport;
}

export interface SupportReason {
  readonly code: QuireErrorCode;
  readonly message: string;
}

/** What WebGPU offers; `missing` says why `auto` would pass it over. */
interface WebGpuSupport extends Pick<Support, "adapter" | "limits" | "features"> {
  readonly missing: string | undefined;
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

const NO_ADAPTER = { adapter: null, limits: {}, features: [] } as const;
const NO_PAGE = "This is no browser page: Quire needs Worker.";
const NOT_OFFERED =
  "The browser has WebGPU but offers no adapter: the GPU or its driver is on the browser's " +
  "block list, or the system has none. Update the driver or look at the browser's GPU page.";
const NO_SIMD = "The browser's WebAssembly has no 128-bit SIMD. Use a current browser.";

/** Says whether an engine can run on this page, and why not. Never rejects; works in Node too. */
export async function checkSupport(): Promise<Support> {
  const isPage = typeof Worker !== "undefined" && typeof navigator !== "undefined";
  const { missing, ...gpu } = isPage ? await webGpuSupport() : { ...NO_ADAPTER, missing: NO_PAGE };
  const found = wasmSupport();
  const wasm = { ...found, ok: found.ok && isPage };
  const reasons: SupportReason[] = [];
  if (missing !== undefined) reasons.push({ code: "webgpu-unavailable", message: missing });
  if (!wasm.ok) reasons.push({ code: "wasm-unavailable", message: isPage ? NO_SIMD : NO_PAGE });
  const backend = missing === undefined ? "webgpu" : wasm.ok ? "wasm" : null;
  return { ok: backend !== null, backend, reasons, ...gpu, wasm };
}

async function webGpuSupport(): Promise<WebGpuSupport> {
  if (navigator.gpu === undefined) {
    const missing = globalThis.isSecureContext
      ? "The browser has no WebGPU (navigator.gpu is missing). Use a current browser, or turn WebGPU on in its settings."
      : "The page is no secure context, so the browser hides WebGPU. Serve it over https or from localhost.";
    return { ...NO_ADAPTER, missing };
  }
  try {
    const found = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    return found === null ? { ...NO_ADAPTER, missing: NOT_OFFERED } : describe(found);
  } catch (error) {
    // Also by an adapter that lacks what the specification gives it, as early versions had them.
    const missing = `The browser failed to offer a GPU adapter that can be read: ${String(error)}.`;
    return { ...NO_ADAPTER, missing };
  }
}

function describe({ info, limits, features }: GPUAdapter): WebGpuSupport {
  const adapter = summarise(info);
  return {
    adapter,
    limits: Object.fromEntries(LIMIT_NAMES.map((name) => [name, Number(limits[name])])),
    features: [...features].sort(),
    missing: adapter.isFallback
      ? 'WebGPU offers only a software adapter. `backend: "webgpu"` would take it.'
      : undefined,
  };
}

function summarise(info: GPUAdapterInfo): AdapterSummary {
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    description: info.description,
    isFallback: info.isFallbackAdapter ?? false,
  };
}
