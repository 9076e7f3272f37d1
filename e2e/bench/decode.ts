import type { QuireEngine } from "../../src/client/types.ts";
import { type Benchmark, CONTEXT_TOKENS, STEPS_A_RUN } from "./benchmark.ts";
import { plainTokens } from "./tokens.ts";

/**
 * A whole decode step as a user has it: public API, sampling and detokenizing included. The prompts
 * share all but their last token, so that after the warm-up the pool has the rest, a measurement
 * starts with one row a sequence and every step of it is a decode step.
 */
export function createDecodeBenchmark(engine: QuireEngine): Benchmark {
  const { vocabularySize } = engine.model;
  const shared = plainTokens(CONTEXT_TOKENS, 1, vocabularySize);
  const run = async (batch: number): Promise<number> => {
    const lastTokens = plainTokens(batch, 2, vocabularySize);
    const arrivals = await Promise.all(
      lastTokens.map((last) => tokenArrivals(engine, [...shared, last])),
    );
    // A sequence that came a step late would make the first steps smaller than they should be.
    const start = Math.max(...arrivals.map((times) => times[0] as number));
    const end = Math.min(...arrivals.map((times) => times.at(-1) as number));
    const steps = (arrivals[0] as number[]).filter((time) => time > start && time <= end).length;
    if (steps < STEPS_A_RUN / 2) {
      throw new Error(`Only ${steps} steps had all ${batch} sequences: nothing to measure.`);
    }
    return (end - start) / steps;
  };
  return {
    unit: "ms/step",
    measure: run,
    warmUp: async (batch) => {
      await run(batch);
    },
    dispose: async () => {},
  };
}

/** When each of the sequence's first tokens came, in ms. */
async function tokenArrivals(engine: QuireEngine, prompt: readonly number[]): Promise<number[]> {
  const stream = await engine.completions.create({
    prompt,
    max_tokens: STEPS_A_RUN + 1,
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
