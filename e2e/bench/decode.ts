import type { QuireEngine } from "../../src/client/types.ts";
import { invariant } from "../../src/errors.ts";
import type { Benchmark, BenchmarkCase } from "./benchmark.ts";
import { plainTokens } from "./tokens.ts";

/**
 * A whole decode step as a user has it: public API, sampling and detokenizing included, the mean of
 * `numSteps`. The prompts share all but their last token, so that after the warm-up the pool has the
 * rest, a measurement starts with one row a sequence and every step of it is a decode step.
 */
export function createDecodeBenchmark(engine: QuireEngine, numSteps: number): Benchmark {
  const { vocabularySize } = engine.model;
  const run = async ({ batch, context }: BenchmarkCase): Promise<number> => {
    invariant(context !== undefined, "A decode step has a context.");
    const shared = plainTokens(context, 1, vocabularySize);
    const lastTokens = plainTokens(batch, 2, vocabularySize);
    const arrivals = await Promise.all(
      lastTokens.map((last) => tokenArrivals(engine, [...shared, last], numSteps + 1)),
    );
    // A sequence that came a step late would make the first steps smaller than they should be.
    const start = Math.max(...arrivals.map((times) => times[0] as number));
    const end = Math.min(...arrivals.map((times) => times.at(-1) as number));
    const steps = (arrivals[0] as number[]).filter((time) => time > start && time <= end).length;
    if (steps < numSteps / 2) {
      throw new Error(`Only ${steps} steps had all ${batch} sequences: nothing to measure.`);
    }
    return (end - start) / steps;
  };
  return {
    unit: "ms/step",
    measure: run,
    warmUp: async (which) => {
      await run(which);
    },
    dispose: async () => {},
  };
}

/** When each of the sequence's first tokens came, in ms. */
async function tokenArrivals(
  engine: QuireEngine,
  prompt: readonly number[],
  numTokens: number,
): Promise<number[]> {
  const stream = await engine.completions.create({
    prompt,
    max_tokens: numTokens,
    ignore_eos: true,
    temperature: 0,
    stream: true,
    return_token_ids: true,
  });
  const times: number[] = [];
  for await (const { choices } of stream) {
    if ((choices[0]?.token_ids?.length ?? 0) > 0) times.push(performance.now());
  }
  return times;
}
