import type { EngineOptions } from "../../src/client/types.ts";

/** One thing that is measured. */
export interface Benchmark {
  readonly unit: BenchmarkUnit;
  /**
   * Measures a case once and resolves to the result in `unit`, or to several by their names. Called
   * several times for each case, other benchmarks in between; what must happen only once (compiling,
   * filling caches) happens in `warmUp`.
   */
  measure(which: BenchmarkCase): Promise<number | Readonly<Record<string, number>>>;
  warmUp(which: BenchmarkCase): Promise<void>;
  dispose(): Promise<void>;
}

/** `ms/step`: one forward pass for the whole batch. `tokens/s`: over the whole batch. */
export type BenchmarkUnit = "ms/step" | "tokens/s" | "perplexity";

export interface BenchmarkCase {
  readonly batch: number;
  /** Tokens in the KV pool when the measurement starts; set where that matters. */
  readonly context?: number;
}

/** What `scripts/bench.mjs` gives to the page. */
export interface BenchmarkConfig {
  /** URL of the built library. */
  readonly library: string;
  /** By name: what is measured must not depend on what the engine would choose. */
  readonly backend: "webgpu" | "wasm";
  readonly engine: Pick<EngineOptions, "precision" | "threads" | "simd">;
  readonly model: { readonly url: string; readonly name: string; readonly byteLength: number };
  /** How much of its text `perplexity` reads. */
  readonly numWindows: number;
}

/** Steps that one measurement of `ms/step` averages: enough for the clock, few enough for a software adapter. */
export const STEPS_A_RUN: Readonly<Record<BenchmarkConfig["backend"], number>> = {
  webgpu: 6,
  wasm: 32,
};
