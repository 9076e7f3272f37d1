import { expose } from "comlink";
import type { BackendFacts } from "../../../scripts/bench/machine.mjs";
import { openRangeSource } from "../../../scripts/pages/rangeSource.js";
import type { BuilderContext } from "../../../src/backends/wasm/options.ts";
import type { BenchmarkConfig } from "../benchmark.ts";
import { type Breakdown, openBreakdown } from "./breakdown.ts";
import { openKernels } from "./kernels.ts";
import { openWalk, type Walk } from "./walk.ts";

let config: BenchmarkConfig | undefined;
let context: Promise<BuilderContext> | undefined;
let walk: Promise<Walk> | undefined;
let breakdown: Promise<Breakdown> | undefined;

/** What reaches behind the public API of the WASM back end: it has to run in a worker, steps block. */
const bench = {
  /** Takes the options and resolves to what they come to. */
  async open(given: BenchmarkConfig): Promise<BackendFacts> {
    config = given;
    context = openKernels(given.engine);
    const { precision, threads, kernels } = await context;
    return { backend: "wasm", precision, threads, simd: kernels.simd };
  },
  async walk(rows: number, count: number): Promise<number> {
    walk ??= openWalk(openRangeSource(config!.model), await context!);
    return (await walk)(rows, count);
  },
  async breakdown(
    batch: number,
    numTokens: number,
    count: number,
  ): Promise<Readonly<Record<string, number>>> {
    breakdown ??= openBreakdown(openRangeSource(config!.model), await context!);
    return (await breakdown)(batch, numTokens, count);
  },
};
expose(bench);

export type WasmBench = typeof bench;
