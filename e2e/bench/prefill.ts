import type { QuireEngine } from "../../src/client/types.ts";
import type { Benchmark } from "./benchmark.ts";
import { plainTokens } from "./tokens.ts";

/** Tokens of a prompt. */
const PROMPT_TOKENS = 64;

/** Prompt tokens a second, from submitting the prompts to the last one's first token. */
export function createPrefillBenchmark(engine: QuireEngine): Benchmark {
  // No prompt comes twice: the pool would have it already.
  let seed = 1000;
  const run = async (batch: number): Promise<number> => {
    const prompts = Array.from({ length: batch }, () =>
      plainTokens(PROMPT_TOKENS, seed++, engine.model.vocabularySize),
    );
    const start = performance.now();
    await Promise.all(
      prompts.map((prompt) =>
        engine.completions.create({ prompt, max_tokens: 1, ignore_eos: true, temperature: 0 }),
      ),
    );
    return (batch * PROMPT_TOKENS * 1000) / (performance.now() - start);
  };
  return {
    unit: "tokens/s",
    measure: ({ batch }) => run(batch),
    warmUp: async () => {
      await run(1);
    },
    dispose: async () => {},
  };
}
