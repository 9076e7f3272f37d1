import { openRangeSource } from "../../scripts/pages/rangeSource.js";
import type { QuireEngine } from "../../src/client/types.ts";
import type { Benchmark, BenchmarkConfig, BenchmarkUnit } from "./benchmark.ts";
import { createDecodeBenchmark } from "./decode.ts";
import { createLinearBenchmark } from "./linear.ts";
import { createPrefillBenchmark } from "./prefill.ts";

/** What `scripts/bench.mjs` calls in the page: one benchmark at a time, one measurement a call. */
export interface BenchPage {
  /** Loads what the benchmarks need and resolves to their units. */
  open(config: BenchmarkConfig, names: readonly string[]): Promise<Record<string, BenchmarkUnit>>;
  warmUp(name: string, batch: number): Promise<void>;
  measure(name: string, batch: number): Promise<number>;
  close(): Promise<void>;
}

const benchmarks = new Map<string, Benchmark>();
let engine: QuireEngine | undefined;

const page: BenchPage = {
  async open(config, names) {
    const source = openRangeSource(config.model);
    const makers: Readonly<Record<string, () => Benchmark | Promise<Benchmark>>> = {
      decode: async () => createDecodeBenchmark(await openEngine(config)),
      prefill: async () => createPrefillBenchmark(await openEngine(config)),
      linear: () => createLinearBenchmark(source, Math.max(...config.batches)),
    };
    const units: Record<string, BenchmarkUnit> = {};
    for (const name of names) {
      const maker = makers[name];
      if (maker === undefined) throw new Error(`The page has no benchmark ${name}.`);
      const benchmark = await maker();
      benchmarks.set(name, benchmark);
      units[name] = benchmark.unit;
    }
    return units;
  },
  warmUp: (name, batch) => find(name).warmUp(batch),
  measure: (name, batch) => find(name).measure(batch),
  async close() {
    for (const benchmark of benchmarks.values()) await benchmark.dispose();
    benchmarks.clear();
    await engine?.dispose();
    engine = undefined;
  },
};
Object.assign(globalThis, { bench: page });

function find(name: string): Benchmark {
  const benchmark = benchmarks.get(name);
  if (benchmark === undefined) throw new Error(`The benchmark ${name} is not open.`);
  return benchmark;
}

/** The engine of the built library, shared by the benchmarks that need one. */
async function openEngine({ library, backend, model }: BenchmarkConfig): Promise<QuireEngine> {
  if (engine !== undefined) return engine;
  const built = (await import(/* @vite-ignore */ library)) as typeof import("../../src/index.ts");
  engine = await built.createEngine({ model: openRangeSource(model), backend });
  return engine;
}
