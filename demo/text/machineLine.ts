import type { AdapterSummary } from "quire";

/** What computes, as far as it is known. */
export interface Machine {
  /** Undefined where none can run. */
  readonly backend: string | undefined;
  /** Why that one; undefined where nobody has said. */
  readonly reason: string | undefined;
  /** Undefined until a model is loaded. */
  readonly threads: number | undefined;
  readonly adapter: AdapterSummary | null;
  /** Features of the adapter; undefined if nobody has looked yet. */
  readonly features: readonly string[] | undefined;
  readonly precision: string;
  readonly kv: string;
}

/** One honest line about the machine. */
export interface MachineLine {
  readonly text: string;
  /** The user should not expect speed. */
  readonly isSlow: boolean;
}

export function describeMachine(machine: Machine): MachineLine {
  const { adapter, backend, features, threads } = machine;
  const isWasm = backend === "wasm";
  const parts = [isWasm ? describeWasm(machine.reason) : describeAdapter(adapter, backend)];
  if (isWasm && threads !== undefined) parts.push(`${threads} thread${threads === 1 ? "" : "s"}`);
  parts.push(machine.precision === "exact" ? "exact (f32)" : "fast (8-bit activations)");
  parts.push(`KV ${machine.kv}`);
  if (!isWasm && adapter !== null && features !== undefined) {
    const missing = ["shader-f16", "subgroups"].filter((name) => !features.includes(name));
    if (missing.length > 0) parts.push(`without ${missing.join(" and ")}`);
  }
  const isSlow = !isWasm && (adapter === null || adapter.isFallback);
  return { text: parts.join(" · "), isSlow };
}

/** The line has room for the beginning of the reason. */
function describeWasm(reason: string | undefined): string {
  const why = reason?.split(/[.:](?:\s|$)/)[0] ?? "";
  return why === "" ? "CPU: WASM SIMD" : `CPU: WASM SIMD (${why})`;
}

function describeAdapter(adapter: AdapterSummary | null, backend: string | undefined): string {
  if (adapter === null) {
    return backend === undefined ? "No GPU adapter" : `No GPU: the ${backend} back end, slow`;
  }
  const name = [adapter.vendor, adapter.architecture, adapter.description]
    .filter((word) => word !== "")
    .join(" ");
  if (adapter.isFallback) {
    return `Software adapter (${name || "unnamed"}): WebGPU runs on the CPU here: slow`;
  }
  if (name === "") {
    return "An adapter that the browser does not name (it may be software, which is slow)";
  }
  return `GPU: ${name}`;
}
