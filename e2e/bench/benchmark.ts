/** One thing that is measured. */
export interface Benchmark {
  readonly unit: BenchmarkUnit;
  /**
   * Measures once at a batch size and resolves to the result in `unit`. Called several times for each
   * batch size, other benchmarks in between; what must happen only once (compiling, filling caches)
   * happens in `warmUp`.
   */
  measure(batch: number): Promise<number>;
  warmUp(batch: number): Promise<void>;
  dispose(): Promise<void>;
}

/** `ms/step`: one forward pass for the whole batch. `tokens/s`: over the whole batch. */
export type BenchmarkUnit = "ms/step" | "tokens/s";

/** What `scripts/bench.mjs` gives to the page. */
export interface BenchmarkConfig {
  /** URL of the built library. */
  readonly library: string;
  readonly backend: "webgpu";
  readonly model: { readonly url: string; readonly name: string; readonly byteLength: number };
  readonly batches: readonly number[];
}

/** Tokens in the KV pool when a decode step is measured. */
export const CONTEXT_TOKENS = 64;

/** Steps that one measurement of `ms/step` averages. */
export const STEPS_A_RUN = 6;
