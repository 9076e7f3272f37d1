import type { BackendFacts } from "../../scripts/bench/machine.mjs";
import { openRangeSource } from "../../scripts/pages/rangeSource.js";
import type { QuireEngine } from "../../src/client/types.ts";
import {
  type Benchmark,
  type BenchmarkCase,
  type BenchmarkConfig,
  type BenchmarkUnit,
  STEPS_A_RUN,
} from "./benchmark.ts";
import { createDecodeBenchmark } from "./decode.ts";
import { createLinearBenchmark } from "./linear.ts";
import { createPerplexityBenchmark } from "./perplexity.ts";
import { createPrefillBenchmark } from "./prefill.ts";
import { openWasmBenchmarks, type WasmBenchmarks } from "./wasm/benchmarks.ts";

/** What `scripts/bench.mjs` calls in the page: one benchmark at a time, one measurement a call. */
export interface BenchPage {
  /** Loads what the benchmarks need. */
  open(config: BenchmarkConfig, names: readonly string[]): Promise<OpenedBenchmarks>;
  warmUp(name: string, which: BenchmarkCase): Promise<void>;
  measure(name: string, which: BenchmarkCase): ReturnType<Benchmark["measure"]>;
  close(): Promise<void>;
}

export interface OpenedBenchmarks {
  readonly units: Readonly<Record<string, BenchmarkUnit>>;
  readonly backend: BackendFacts;
}

const benchmarks = new Map<string, Benchmark>();
let engine: QuireEngine | undefined;
let wasm: WasmBenchmarks | undefined;

const page: BenchPage = {
  async open(config, names) {
    const numSteps = STEPS_A_RUN[config.backend];
    const decode = async () => createDecodeBenchmark(await openEngine(config), numSteps);
    const makers: Readonly<Record<string, () => Promise<Benchmark>>> = {
      decode,
      context: decode,
      prefill: async () => createPrefillBenchmark(await openEngine(config)),
      perplexity: async () =>
        createPerplexityBenchmark(await openEngine(config), config.numWindows),
      linear: () => createLinearBenchmark(openRangeSource(config.model), numSteps),
      walk: async () => (wasm ??= await openWasmBenchmarks(config)).walk,
      breakdown: async () => (wasm ??= await openWasmBenchmarks(config)).breakdown,
    };
    const units: Record<string, BenchmarkUnit> = {};
    for (const name of names) {
      const maker = makers[name];
      if (maker === undefined) throw new Error(`The page has no benchmark ${name}.`);
      const benchmark = await maker();
      benchmarks.set(name, benchmark);
      units[name] = benchmark.unit;
    }
    return { units, backend: factsOf(config) };
  },
  warmUp: (name, which) => find(name).warmUp(which),
  measure: (name, which) => find(name).measure(which),
  async close() {
    for (const benchmark of benchmarks.values()) await benchmark.dispose();
    benchmarks.clear();
    await engine?.dispose();
    engine = undefined;
    wasm = undefined;
  },
};
Object.assign(globalThis, { bench: page });

function find(name: string): Benchmark {
  const benchmark = benchmarks.get(name);
  if (benchmark === undefined) throw new Error(`The benchmark ${name} is not open.`);
  return benchmark;
}

/** What is measured. The bare kernels of WebGPU have neither threads nor a choice of precision. */
function factsOf({ backend }: BenchmarkConfig): BackendFacts {
  if (engine !== undefined) {
    const { backend, precision, threads, simd } = engine;
    return { backend, precision, threads, simd };
  }
  return wasm?.facts ?? { backend, precision: "exact", threads: 1, simd: null };
}

/** The engine of the built library, shared by the benchmarks that need one. */
async function openEngine(config: BenchmarkConfig): Promise<QuireEngine> {
  if (engine !== undefined) return engine;
  const { createEngine } = (await import(
    /* @vite-ignore */ config.library
  )) as typeof import("../../src/index.ts");
  const { backend, model } = config;
  engine = await createEngine({ ...config.engine, model: openRangeSource(model), backend });
  return engine;
}
