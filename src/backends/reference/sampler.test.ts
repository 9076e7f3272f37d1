import { describe, expect, test } from "vitest";
import { GREEDY, type SamplingParams } from "../../engine/sampling.ts";
import { softmax } from "./kernels.ts";
import { keepMinP, keepTopK, keepTopP, logprobs, penalise, sample } from "./sampler.ts";

const NO_COUNTS = { prompt: new Set<number>(), output: new Map<number, number>() };
const SAMPLED: SamplingParams = { ...GREEDY, temperature: 1 };

/** Ids of the tokens that a filter kept. */
const kept = (logits: Float64Array): number[] =>
  Array.from(logits.keys()).filter((id) => logits[id] !== -Infinity);

/** Logits of the given probabilities. */
const logitsOf = (...probabilities: number[]): Float64Array =>
  Float64Array.from(probabilities, Math.log);

describe("greedy", () => {
  test("takes the largest logit, ties to the lowest id", () => {
    expect(sample([1, 5, 2, 5], GREEDY, NO_COUNTS, 0)).toBe(1);
    expect(sample([0, 0, 0], GREEDY, NO_COUNTS, 0)).toBe(0);
  });

  test("ignores the filters and the seed, not bias and penalties", () => {
    const params = { ...GREEDY, topK: 1, topP: 0.01, minP: 1, seed: [7, 7] as const };
    expect(sample([1, 2, 3], params, NO_COUNTS, 0)).toBe(2);
    expect(sample([1, 2, 3], { ...params, logitBias: [[0, 5]] }, NO_COUNTS, 0)).toBe(0);
    const counts = { prompt: new Set<number>(), output: new Map([[2, 1]]) };
    expect(sample([1, 2, 3], { ...params, presencePenalty: 1.5 }, counts, 0)).toBe(1);
  });
});

describe("penalties", () => {
  const logits = Float64Array.of(4, -4, 2, 0);
  const counts = { prompt: new Set([0, 1]), output: new Map([[2, 3]]) };

  test("repetition divides positive and multiplies negative logits of prompt and output", () => {
    const params = { ...GREEDY, repetitionPenalty: 2 };
    expect([...penalise(logits, params, counts)]).toEqual([2, -8, 1, 0]);
  });

  test("frequency counts, presence does not; both see the output only", () => {
    expect([...penalise(logits, { ...GREEDY, frequencyPenalty: 0.5 }, counts)]).toEqual([
      4, -4, 0.5, 0,
    ]);
    expect([...penalise(logits, { ...GREEDY, presencePenalty: 0.5 }, counts)]).toEqual([
      4, -4, 1.5, 0,
    ]);
  });

  test("the bias comes first, then repetition, then the others", () => {
    const params: SamplingParams = {
      ...GREEDY,
      logitBias: [[2, 6]],
      repetitionPenalty: 2,
      frequencyPenalty: 1,
      presencePenalty: 0.25,
    };
    expect(penalise(logits, params, counts)[2]).toBe((2 + 6) / 2 - 3 - 0.25);
  });

  test("a token in prompt and output is penalised once", () => {
    const both = { prompt: new Set([0]), output: new Map([[0, 1]]) };
    expect(penalise(logits, { ...GREEDY, repetitionPenalty: 2 }, both)[0]).toBe(2);
  });
});

describe("top-k", () => {
  test("0 and more than the vocabulary keep all", () => {
    const logits = Float64Array.of(1, 2, 3);
    expect(kept(keepTopK(logits, 0))).toEqual([0, 1, 2]);
    expect(kept(keepTopK(logits, 3))).toEqual([0, 1, 2]);
    expect(kept(keepTopK(logits, 99))).toEqual([0, 1, 2]);
  });

  test("keeps the best, and all that tie with the last", () => {
    expect(kept(keepTopK(Float64Array.of(1, 4, 2, 3), 2))).toEqual([1, 3]);
    expect(kept(keepTopK(Float64Array.of(3, 4, 3, 3, 1), 2))).toEqual([0, 1, 2, 3]);
    expect(kept(keepTopK(Float64Array.of(5, 5, 5), 1))).toEqual([0, 1, 2]);
  });
});

describe("top-p", () => {
  const logits = logitsOf(0.1, 0.4, 0.2, 0.3);

  test("keeps the smallest set that reaches p", () => {
    expect(kept(keepTopP(logits, 0.39))).toEqual([1]);
    expect(kept(keepTopP(logits, 0.41))).toEqual([1, 3]);
    expect(kept(keepTopP(logits, 0.69))).toEqual([1, 3]);
    expect(kept(keepTopP(logits, 0.71))).toEqual([1, 2, 3]);
    expect(kept(keepTopP(logits, 0.95))).toEqual([0, 1, 2, 3]);
  });

  test("1 keeps all, tiny and 0 keep the best", () => {
    expect(kept(keepTopP(logits, 1))).toEqual([0, 1, 2, 3]);
    expect(kept(keepTopP(logits, 1e-12))).toEqual([1]);
    expect(kept(keepTopP(logits, 0))).toEqual([1]);
  });

  test("keeps all that tie with the last kept", () => {
    expect(kept(keepTopP(Float64Array.of(2, 2, 2, 2), 0.3))).toEqual([0, 1, 2, 3]);
    expect(kept(keepTopP(Float64Array.of(5, 1, 1, 0), 0.95))).toEqual([0]);
    expect(kept(keepTopP(Float64Array.of(3, 1, 1, 0), 0.8))).toEqual([0, 1, 2]);
  });

  test("counts probabilities among the tokens that earlier filters left", () => {
    const filtered = keepTopK(logits, 2); // 4/7 and 3/7
    expect(kept(keepTopP(filtered, 0.5))).toEqual([1]);
    expect(kept(keepTopP(filtered, 0.6))).toEqual([1, 3]);
    expect(kept(keepTopP(filtered, 0.9999999))).toEqual([1, 3]);
  });
});

describe("min-p", () => {
  const logits = logitsOf(0.1, 0.4, 0.2, 0.3);

  test("keeps tokens near the best one", () => {
    expect(kept(keepMinP(logits, 0))).toEqual([0, 1, 2, 3]);
    expect(kept(keepMinP(logits, 0.26))).toEqual([1, 2, 3]);
    expect(kept(keepMinP(logits, 0.51))).toEqual([1, 3]);
    expect(kept(keepMinP(logits, 1))).toEqual([1]);
    expect(kept(keepMinP(Float64Array.of(1, 1), 1))).toEqual([0, 1]);
  });
});

describe("random choice", () => {
  const numTokens = 12;
  const logits = Array.from({ length: numTokens }, (_, i) => Math.sin(3 * i) * 2);

  /** Occurrences of each token over `n` positions. */
  const histogram = (params: SamplingParams, n: number): number[] => {
    const counts = new Array<number>(numTokens).fill(0);
    for (let position = 0; position < n; position++) {
      counts[sample(logits, params, NO_COUNTS, position)]!++;
    }
    return counts;
  };

  /** Chi-square of the counts against probabilities; zero probabilities must have no count. */
  const chiSquare = (counts: readonly number[], probabilities: ArrayLike<number>): number => {
    const n = counts.reduce((sum, count) => sum + count, 0);
    return counts.reduce((sum, count, i) => {
      const expected = n * probabilities[i]!;
      if (expected === 0) {
        expect(count).toBe(0);
        return sum;
      }
      return sum + (count - expected) ** 2 / expected;
    }, 0);
  };

  // Seeds are fixed, so these cannot flake; 99.9% of chi-square with 11 degrees of freedom is 31.3.
  test.each([1, 2, 3])("follows the softmax with seed %i", (low) => {
    const counts = histogram({ ...SAMPLED, seed: [low, 0] }, 8_000);
    expect(chiSquare(counts, softmax(logits))).toBeLessThan(31.3);
  });

  test.each([0.5, 2])("follows the softmax at temperature %f", (temperature) => {
    const counts = histogram({ ...SAMPLED, temperature, seed: [9, 9] }, 8_000);
    const expected = softmax(logits.map((logit) => logit / temperature));
    expect(chiSquare(counts, expected)).toBeLessThan(31.3);
  });

  test("follows the renormalised softmax of what top-k, top-p and min-p left", () => {
    const params = { ...SAMPLED, topK: 6, topP: 0.9, minP: 0.02, seed: [5, 0] as const };
    const filtered = keepTopP(keepTopK(keepMinP(Float64Array.from(logits), 0.02), 6), 0.9);
    expect(kept(filtered).length).toBeGreaterThan(2);
    expect(kept(filtered).length).toBeLessThanOrEqual(6);
    expect(chiSquare(histogram(params, 8_000), softmax(filtered))).toBeLessThan(31.3);
  });

  test("is even over equal logits", () => {
    const equal = new Array<number>(numTokens).fill(-3);
    const counts = new Array<number>(numTokens).fill(0);
    for (let position = 0; position < 6_000; position++) {
      counts[sample(equal, { ...SAMPLED, topK: 1 }, NO_COUNTS, position)]!++; // all tie
    }
    expect(chiSquare(counts, softmax(equal))).toBeLessThan(31.3);
  });

  test("depends on seed and position only", () => {
    const params = { ...SAMPLED, seed: [123, 456] as const };
    const draw = (p: SamplingParams) =>
      Array.from({ length: 32 }, (_, position) => sample(logits, p, NO_COUNTS, position));
    expect(draw(params)).toEqual(draw(params));
    expect(draw(params)).not.toEqual(draw({ ...params, seed: [124, 456] }));
    expect(draw(params)).not.toEqual(draw({ ...params, seed: [123, 457] }));
  });
});

describe("logprobs", () => {
  test("natural logarithms of the raw softmax, best first, ties to the lowest id", () => {
    const found = logprobs(logitsOf(0.25, 0.5, 0.25), 2, 3);
    expect(found.logprob).toBeCloseTo(Math.log(0.25), 12);
    expect(found.top.map(({ token }) => token)).toEqual([1, 0, 2]);
    expect(found.top[0]!.logprob).toBeCloseTo(Math.log(0.5), 12);
  });

  test("0 asks for the sampled token's alone", () => {
    expect(logprobs([0, 0], 1, 0)).toEqual({ logprob: -Math.log(2), top: [] });
  });
});
