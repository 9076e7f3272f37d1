import type { AdapterSummary } from "quire";

/** What computes, as far as it is known. */
export interface Machine {
  /** Undefined until a model is loaded. */
  readonly backend: string | undefined;
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
  const { adapter, features } = machine;
  const parts = [describeAdapter(adapter, machine.backend)];
  parts.push(machine.precision === "exact" ? "exact (f32)" : machine.precision);
  parts.push(`KV ${machine.kv}`);
  if (adapter !== null && features !== undefined) {
    const missing = ["shader-f16", "subgroups"].filter((name) => !features.includes(name));
    if (missing.length > 0) parts.push(`without ${missing.join(" and ")}`);
  }
  return { text: parts.join(" · "), isSlow: adapter === null || adapter.isFallback };
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
