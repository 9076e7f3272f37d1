import { describe, expect, it } from "vitest";
import {
  ALPACA,
  beams,
  chatbotTrace,
  documentTrace,
  independentTrace,
  longPromptTrace,
  MIXED,
  SHAREGPT,
  sharedPrefixTrace,
  type Trace,
  WMT16,
} from "./workloads.ts";

const COUNT = 20_000;

function statistics(values: readonly number[]): { mean: number; cv: number } {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
  return { mean, cv: Math.sqrt(variance) / mean };
}

const prompts = (trace: Trace) => trace.map(({ promptTokens }) => promptTokens);
const outputs = (trace: Trace) => trace.map(({ outputTokens }) => outputTokens);

describe("lengths", () => {
  it("of the ShareGPT-like load have the paper's means but for the cut at 2048, which takes a few percent", () => {
    const trace = independentTrace(SHAREGPT, { seed: 1, count: COUNT, rate: 1 });
    const prompt = statistics(prompts(trace));
    const output = statistics(outputs(trace));
    expect(prompt.mean / 161.31).toBeGreaterThan(0.93);
    expect(prompt.mean / 161.31).toBeLessThan(1.01);
    expect(prompt.cv).toBeGreaterThan(1.2);
    expect(prompt.cv).toBeLessThan(1.6);
    expect(output.mean / 337.99).toBeGreaterThan(0.94);
    expect(output.mean / 337.99).toBeLessThan(1.01);
    expect(output.cv).toBeGreaterThan(0.8);
    expect(output.cv).toBeLessThan(1);
    for (const { promptTokens, outputTokens } of trace) {
      expect(promptTokens).toBeGreaterThanOrEqual(1);
      expect(outputTokens).toBeGreaterThanOrEqual(1);
      expect(promptTokens + outputTokens).toBeLessThan(2048);
    }
  });

  it("of the Alpaca-like load have the paper's means and the stated spreads", () => {
    const trace = independentTrace(ALPACA, { seed: 1, count: COUNT, rate: 1 });
    const prompt = statistics(prompts(trace));
    const output = statistics(outputs(trace));
    expect(Math.abs(prompt.mean / 19.31 - 1)).toBeLessThan(0.03);
    expect(Math.abs(prompt.cv - 0.8)).toBeLessThan(0.06);
    expect(Math.abs(output.mean / 58.45 - 1)).toBeLessThan(0.03);
    expect(Math.abs(output.cv - 1.1)).toBeLessThan(0.1);
  });

  it("do not depend on the rate", () => {
    const at = (rate: number) => independentTrace(SHAREGPT, { seed: 5, count: 100, rate });
    expect(prompts(at(1))).toEqual(prompts(at(7)));
    expect(outputs(at(1))).toEqual(outputs(at(7)));
  });
});

describe("arrivals", () => {
  it("are a Poisson process in quanta of 10 ms", () => {
    const trace = independentTrace(ALPACA, { seed: 2, count: COUNT, rate: 20 });
    const seconds = Math.floor(trace.at(-1)!.arrivalMs / 1000);
    const counts = new Array<number>(seconds).fill(0);
    for (const { arrivalMs } of trace) {
      expect(arrivalMs % 10).toBe(0);
      const second = Math.floor(arrivalMs / 1000);
      if (second < seconds) counts[second]! += 1;
    }
    const { mean, cv } = statistics(counts);
    expect(Math.abs(mean - 20)).toBeLessThan(0.5);
    // Mean and variance of a Poisson count are the same.
    expect(Math.abs((cv * mean) ** 2 / mean - 1)).toBeLessThan(0.15);
  });

  it("are all at the start at an infinite rate", () => {
    const trace = independentTrace(ALPACA, { seed: 2, count: 10, rate: Number.POSITIVE_INFINITY });
    expect(trace.every(({ arrivalMs }) => arrivalMs === 0)).toBe(true);
  });
});

describe("mixtures", () => {
  it("give each width its part of the requests, and number the sequences", () => {
    const trace = independentTrace(ALPACA, { seed: 3, count: 1000, rate: 1, mixture: MIXED });
    for (const { part, width, isBeam } of MIXED) {
      const found = trace.filter((request) => request.width === width && request.isBeam === isBeam);
      expect(found).toHaveLength(Math.round(part * 1000));
    }
    let next = 0;
    for (const { firstSequence, width } of trace) {
      expect(firstSequence).toBe(next);
      next += width;
    }
  });

  it("of beams are beams", () => {
    const trace = independentTrace(ALPACA, { seed: 3, count: 5, rate: 1, mixture: beams(4) });
    expect(trace.every(({ width, isBeam }) => width === 4 && isBeam)).toBe(true);
  });
});

describe("prefixes and prompts", () => {
  it("of translations are the same for all and come on top", () => {
    const trace = sharedPrefixTrace(WMT16, 341, { seed: 1, count: 200, rate: 1 });
    for (const { promptTokens, prefix } of trace) {
      expect(prefix).toEqual({ id: 0, tokens: 341 });
      expect(promptTokens).toBeGreaterThan(341);
    }
  });

  it("of documents are shared by the questions about each", () => {
    const load = { documentTokens: 1000, questionsEach: 8, documentsAtOnce: 5 };
    const trace = documentTrace(load, { seed: 1, count: 80, rate: 1 });
    const counts = new Map<number, number>();
    for (const { prefix } of trace) counts.set(prefix!.id, (counts.get(prefix!.id) ?? 0) + 1);
    expect([...counts.values()]).toEqual(new Array(10).fill(8));
    // Five at once, and then the next five.
    expect(new Set(trace.slice(0, 40).map(({ prefix }) => prefix!.id))).toEqual(
      new Set([0, 1, 2, 3, 4]),
    );
    // Shuffled: the questions about a document do not come in a row.
    expect(trace.slice(0, 8).some(({ prefix }) => prefix!.id !== trace[0]!.prefix!.id)).toBe(true);
  });

  it("of chats are at most 1024 tokens, half of them exactly, and so are answers", () => {
    const trace = chatbotTrace({ seed: 1, count: 1000, rate: 1 });
    for (const { promptTokens, outputTokens } of trace) {
      expect(promptTokens).toBeLessThanOrEqual(1024);
      expect(outputTokens).toBeLessThanOrEqual(1024);
    }
    expect(prompts(trace).filter((tokens) => tokens === 1024).length).toBeGreaterThan(400);
  });

  it("are long for every n-th request", () => {
    const trace = longPromptTrace(1800, 20, ALPACA, { seed: 1, count: 100, rate: 1 });
    expect(prompts(trace).filter((tokens) => tokens === 1800)).toHaveLength(5);
  });
});
