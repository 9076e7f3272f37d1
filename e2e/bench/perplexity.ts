import type { QuireEngine } from "../../src/client/types.ts";
import text from "../fixtures/perplexity.txt?raw";
import oracle from "../fixtures/perplexity-oracle.json" with { type: "json" };
import type { Benchmark } from "./benchmark.ts";

/** Tokens that the warm-up judges: enough for every kernel. */
const WARM_UP_TOKENS = 40;

/**
 * How well the model expects a fixed text: e to the mean of -ln p over the text's tokens, each judged
 * after those of its window that come before it. The text is cut into windows as for llama.cpp.
 */
export async function createPerplexityBenchmark(
  engine: QuireEngine,
  numWindows: number,
): Promise<Benchmark> {
  const tokens = await engine.tokenize(text);
  if ((await sha256(tokens.join())) !== oracle.tokensSha256) {
    throw new Error(
      `The model reads perplexity.txt as ${tokens.length} other tokens than llama.cpp read for perplexity-oracle.json: run e2e/oracle/perplexity.mjs with this model.`,
    );
  }
  const { windowTokens } = oracle;
  const windows = oracle.windows
    .slice(0, numWindows)
    .map((_, i) => tokens.slice(i * windowTokens, (i + 1) * windowTokens));
  return {
    unit: "perplexity",
    async measure() {
      const judged: number[] = [];
      for (const window of windows) judged.push(...(await promptLogprobs(engine, window)));
      return Math.exp(-judged.reduce((sum, logprob) => sum + logprob, 0) / judged.length);
    },
    warmUp: async () => {
      await promptLogprobs(engine, tokens.slice(0, WARM_UP_TOKENS));
    },
    dispose: async () => {},
  };
}

/** ln p of the prompt's tokens from the second on. */
async function promptLogprobs(engine: QuireEngine, prompt: readonly number[]): Promise<number[]> {
  const params = { prompt, max_tokens: 0, prompt_logprobs: 0 };
  const { choices } = await engine.completions.create(params);
  return prompt.slice(1).map((token, i) => choices[0]!.prompt_logprobs![i + 1]![token]!.logprob);
}

async function sha256(value: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(value));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
