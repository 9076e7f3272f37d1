import { expect, test } from "vitest";
import { MAX_PROMPT_TOKENS, makeTrace } from "./arrivals.mjs";

const COUNT = 4000;
const trace = makeTrace(1, COUNT);

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

test("a seed gives the same requests again, another seed others", () => {
  expect(makeTrace(1, 50)).toEqual(makeTrace(1, 50));
  expect(makeTrace(2, 50)).not.toEqual(makeTrace(1, 50));
});

test("requests come in order, one a unit of time", () => {
  const arrivals = trace.map(({ arrival }) => arrival);
  expect(arrivals).toEqual([...arrivals].sort((a, b) => a - b));
  expect(arrivals[0]).toBeGreaterThanOrEqual(0);
  expect(arrivals.at(-1)).toBeLessThan(COUNT);
});

test("the gaps are those of a Poisson process: exponential, as long as their deviation", () => {
  const gaps = trace.slice(1).map(({ arrival }, i) => arrival - (trace[i]?.arrival ?? 0));
  expect(mean(gaps)).toBeCloseTo(1, 2);
  expect(mean(gaps.map((gap) => (gap - 1) ** 2))).toBeCloseTo(1, 0);
  // 1 - 1/e of an exponential's values are below its mean; 0.03 is four deviations of this sample.
  const short = gaps.filter((gap) => gap < 1).length / gaps.length;
  expect(Math.abs(short - (1 - 1 / Math.E))).toBeLessThan(0.03);
});

test("lengths are a twentieth of ShareGPT's, cut at 4 and at 102 tokens", () => {
  const prompts = trace.map(({ promptTokens }) => promptTokens);
  const outputs = trace.map(({ outputTokens }) => outputTokens);
  for (const lengths of [prompts, outputs]) {
    expect(Math.min(...lengths)).toBe(4);
    expect(lengths.every(Number.isInteger)).toBe(true);
  }
  expect(Math.max(...prompts)).toBeLessThanOrEqual(MAX_PROMPT_TOKENS);
  expect(
    Math.max(...trace.map((each) => each.promptTokens + each.outputTokens)),
  ).toBeLessThanOrEqual(102);
  expect(mean(prompts)).toBeGreaterThan(7.5);
  expect(mean(prompts)).toBeLessThan(9.5);
  expect(mean(outputs)).toBeGreaterThan(15.5);
  expect(mean(outputs)).toBeLessThan(17.5);
});
