import { expect, test } from "vitest";
import { expectedPerplexity, perplexityLines, readOracle } from "./perplexity.mjs";

const oracle = { windowTokens: 4, numTokens: 11, windows: [3, 6, 4] };
const row = { backend: "wasm", batch: 1, unit: "perplexity", min: 2, max: 2, runs: 1 };

test("a window's first token is judged by nobody, and the last window may be short", () => {
  expect(expectedPerplexity(oracle, 1)).toEqual({ numJudged: 3, perplexity: Math.exp(1) });
  expect(expectedPerplexity(oracle, 3)).toEqual({ numJudged: 8, perplexity: Math.exp(13 / 8) });
  expect(expectedPerplexity(oracle, 9)).toEqual(expectedPerplexity(oracle, 3));
});

test("the line compares what was measured with the same windows", () => {
  const median = 1.01 * Math.exp(1.5);
  const rows = [
    { ...row, name: "decode", median: 5 },
    { ...row, name: "perplexity", median },
  ];
  expect(perplexityLines(rows, 2, oracle)).toEqual([
    "6 tokens judged: perplexity 4.5265, llama.cpp's F32 twin 4.4817: +1.000 %",
  ]);
  expect(perplexityLines([{ ...row, name: "perplexity", median: null }], 2, oracle)).toEqual([]);
});

test("the committed values are of at least 4,096 tokens and agree with themselves", () => {
  const committed = readOracle() as ReturnType<typeof readOracle> & { perplexity: number };
  const { numJudged, perplexity } = expectedPerplexity(committed, committed.windows.length);
  expect(numJudged).toBeGreaterThanOrEqual(4096);
  expect(perplexity).toBeCloseTo(committed.perplexity, 10);
});
