import { type Remote, wrap } from "comlink";
import type { BackendFacts } from "../../../scripts/bench/machine.mjs";
import { invariant } from "../../../src/errors.ts";
import { type Benchmark, type BenchmarkConfig, STEPS_A_RUN } from "../benchmark.ts";
import type { WasmBench } from "./worker.ts";

const NUM_STEPS = STEPS_A_RUN.wasm;
/** First calls run in baseline code. */
const WARM_UP_WALKS = 40;

/** The benchmarks of the WASM back end's own parts, and what they measure. */
export interface WasmBenchmarks {
  readonly facts: BackendFacts;
  readonly walk: Benchmark;
  readonly breakdown: Benchmark;
}

/** Starts the worker that both run in; `dispose` of either ends it. */
export async function openWasmBenchmarks(config: BenchmarkConfig): Promise<WasmBenchmarks> {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const bench: Remote<WasmBench> = wrap(worker);
  const facts = await bench.open(config);
  const common = { unit: "ms/step", dispose: async () => worker.terminate() } as const;
  return {
    facts,
    walk: {
      ...common,
      measure: ({ batch }) => bench.walk(batch, NUM_STEPS),
      warmUp: async ({ batch }) => {
        await bench.walk(batch, WARM_UP_WALKS);
      },
    },
    breakdown: {
      ...common,
      measure: ({ batch, context = 0 }) => bench.breakdown(batch, context, NUM_STEPS),
      warmUp: async ({ batch, context }) => {
        invariant(context !== undefined, "A decode step has a context.");
        await bench.breakdown(batch, context, NUM_STEPS);
      },
    },
  };
}
