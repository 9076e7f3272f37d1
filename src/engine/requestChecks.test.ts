import { describe, expect, it } from "vitest";
import { QuireError } from "../errors.ts";
import type { EngineRequest } from "./engineRequest.ts";
import { checkRequest, MAX_SPECULATIVE_TOKENS } from "./requestChecks.ts";
import { GREEDY, MAX_BEAM_WIDTH } from "./sampling.ts";
import { tokens } from "./testing/engineWorld.ts";

const LIMITS = {
  maxContext: 64,
  numBlocks: 20,
  blockSize: 4,
  maxSequences: 8,
  endTokens: new Set([2]),
};

const GOOD: EngineRequest = {
  id: "a",
  promptTokens: [1, 2, 3],
  n: 1,
  maxTokens: 5,
  stopTokenIds: [],
  sampling: GREEDY,
};

const BEAM = { width: 2, lengthPenalty: 1, earlyStopping: true };

function check(fields: Partial<EngineRequest>, limits: Partial<typeof LIMITS> = {}): void {
  checkRequest({ ...GOOD, ...fields }, { ...LIMITS, ...limits });
}

function errorOf(fields: Partial<EngineRequest>, limits: Partial<typeof LIMITS> = {}): QuireError {
  try {
    check(fields, limits);
  } catch (error) {
    if (error instanceof QuireError) return error;
    throw error;
  }
  throw new Error("The request was accepted.");
}

describe("checkRequest", () => {
  it.each<Partial<EngineRequest>>([
    {},
    { n: 3, bestOf: 3 },
    { n: 100 }, // samples take turns
    { n: 1, bestOf: 20 },
    { maxTokens: 0, promptLogprobs: 0 },
    { maxTokens: 1e6 },
    { beam: BEAM },
    { beam: { ...BEAM, width: 8 }, n: 8 },
    { beam: { ...BEAM, lengthPenalty: -1, earlyStopping: "never" } },
    { priority: -5 },
    { deadlineMs: 0.5 },
    { keep: { ttlMs: Number.POSITIVE_INFINITY } },
    { numSpeculativeTokens: MAX_SPECULATIVE_TOKENS },
    { numSpeculativeTokens: 0 },
    { promptTokens: tokens(63), maxTokens: 1 },
    { promptTokens: tokens(64), maxTokens: 0, promptLogprobs: 1 },
  ])("accepts %o", (fields) => {
    expect(() => check(fields)).not.toThrow();
  });

  it.each<[Partial<EngineRequest>, RegExp]>([
    [{ promptTokens: [] }, /prompt is empty; give at least one token/],
    [{ promptTokens: [1, -1] }, /promptTokens\[1\] is -1/],
    [{ promptTokens: [0.5] }, /promptTokens\[0\] is 0.5/],
    [{ promptTokens: [Number.NaN] }, /promptTokens\[0\] is NaN/],
    [{ n: 0 }, /n is 0; it must be an integer >= 1/],
    [{ n: 1.5 }, /n is 1.5/],
    [{ maxTokens: 0 }, /maxTokens is 0/],
    [{ maxTokens: Number.NaN }, /maxTokens is NaN/],
    [{ bestOf: 0 }, /bestOf is 0/],
    [{ n: 3, bestOf: 2 }, /bestOf is 2; it must be n \(3\) or more/],
    [{ bestOf: 2, beam: BEAM }, /bestOf is 2; it must be left out in a beam search/],
    [{ beam: { ...BEAM, width: 0 } }, /beam.width is 0/],
    [{ beam: { ...BEAM, width: 9 } }, /search of width 9.*at most 8 beams.*maxSequences is 8/],
    [{ beam: BEAM, n: 3 }, /beam.width is 2; it must be n \(3\) or more/],
    [{ beam: { ...BEAM, lengthPenalty: Number.NaN } }, /beam.lengthPenalty is NaN/],
    [{ beam: BEAM, sampling: { ...GREEDY, temperature: 1 } }, /temperature must be 0/],
    [{ beam: BEAM, sampling: { ...GREEDY, presencePenalty: 1 } }, /without penalties/],
    [{ beam: BEAM, sampling: { ...GREEDY, logitBias: [[1, 1]] } }, /logitBias/],
    [{ beam: BEAM, sampling: { ...GREEDY, logprobs: 1 } }, /logprobs/],
    [{ priority: 0.5 }, /priority is 0.5; it must be an integer/],
    [{ priority: Number.POSITIVE_INFINITY }, /priority is Infinity/],
    [{ deadlineMs: 0 }, /deadlineMs is 0; it must be above 0/],
    [{ deadlineMs: Number.NaN }, /deadlineMs is NaN/],
    [{ keep: { ttlMs: 0 } }, /keep.ttlMs is 0/],
    [{ keep: { ttlMs: Number.NaN } }, /keep.ttlMs is NaN/],
    [{ numSpeculativeTokens: -1 }, /numSpeculativeTokens is -1/],
    [{ numSpeculativeTokens: 9 }, /numSpeculativeTokens is 9; it must be an integer from 0 to 8/],
    [{ numSpeculativeTokens: 1.5 }, /numSpeculativeTokens is 1.5/],
  ])("refuses %o as an invalid argument", (fields, message) => {
    const error = errorOf(fields);
    expect(error.code).toBe("invalid-argument");
    expect(error.message).toMatch(message);
  });

  it("refuses beams beyond MAX_BEAM_WIDTH however many slots there are", () => {
    const width = MAX_BEAM_WIDTH + 1;
    const error = errorOf({ beam: { ...BEAM, width } }, { maxSequences: 100 });
    expect(error.message).toMatch(`at most ${MAX_BEAM_WIDTH} beams`);
  });

  it("refuses a prompt that leaves no room for a token, with the numbers", () => {
    const error = errorOf({ promptTokens: tokens(64) });
    expect(error.code).toBe("context-overflow");
    expect(error.data).toEqual({ promptTokens: 64, maxContext: 64 });
    const only = { maxTokens: 0, promptLogprobs: 0 };
    expect(errorOf({ ...only, promptTokens: tokens(65) }).code).toBe("context-overflow");
  });

  it("refuses what could never fit the pool, with the numbers", () => {
    const fields = { promptTokens: tokens(30), maxTokens: 20 };
    const error = errorOf(fields, { numBlocks: 12 });
    expect(error.code).toBe("kv-pool-too-small");
    expect(error.data).toMatchObject({ needed: 13, total: 12, blockSize: 4 });
    expect(error.message).toMatch(/Ask for fewer tokens, shorten the prompt or enlarge the pool/);
    expect(() => check(fields, { numBlocks: 13 })).not.toThrow();
    // The output is clipped to the context first.
    expect(() => check({ ...fields, maxTokens: 1e6 }, { numBlocks: 16 })).not.toThrow();
  });

  it("wants blocks for all beams beside the prompt's full ones, but for one sample only", () => {
    // 2 full blocks of the prompt, then 3 blocks a beam.
    const fields = { promptTokens: tokens(10), maxTokens: 10 };
    const beam = { ...BEAM, width: 4 };
    expect(errorOf({ ...fields, beam }, { numBlocks: 13 }).data).toMatchObject({ needed: 14 });
    expect(() => check({ ...fields, beam }, { numBlocks: 14 })).not.toThrow();
    expect(() => check({ ...fields, n: 4 }, { numBlocks: 5 })).not.toThrow();
  });
});
