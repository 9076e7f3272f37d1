import { describe, expect, it } from "vitest";
import { QuireError } from "../errors.ts";
import type { EngineRequest } from "./engineRequest.ts";
import { createRequest } from "./request.ts";
import { GREEDY } from "./sampling.ts";

const LIMITS = {
  maxSequences: 8,
  maxContext: 64,
  numBlocks: 4,
  blockSize: 16,
  endTokens: new Set([2]),
};

function create(fields: Partial<EngineRequest>, limits = LIMITS) {
  const request: EngineRequest = {
    id: "a",
    promptTokens: [1, 2, 3],
    n: 1,
    maxTokens: 5,
    stopTokenIds: [],
    sampling: GREEDY,
    ...fields,
  };
  return createRequest(request, limits, 10);
}

function errorOf(fields: Partial<EngineRequest>, limits = LIMITS): QuireError {
  try {
    create(fields, limits);
  } catch (error) {
    if (error instanceof QuireError) return error;
    throw error;
  }
  throw new Error("The request was accepted.");
}

describe("createRequest", () => {
  it.each([
    [{ promptTokens: [] }, /prompt is empty/],
    [{ promptTokens: [1, -1] }, /promptTokens\[1\] is -1/],
    [{ promptTokens: [1.5] }, /promptTokens\[0\] is 1.5/],
    [{ promptTokens: [Number.NaN] }, /promptTokens\[0\] is NaN/],
    [{ n: 0 }, /n is 0/],
    [{ maxTokens: 0 }, /maxTokens is 0/],
    [{ maxTokens: 1.5 }, /maxTokens is 1.5/],
  ])("refuses %o as an invalid argument", (fields, message) => {
    const error = errorOf(fields);
    expect(error.code).toBe("invalid-argument");
    expect(error.message).toMatch(message);
  });

  it("refuses a prompt that leaves no room for one token, with the numbers", () => {
    const error = errorOf({ promptTokens: new Array(64).fill(1) });
    expect(error.code).toBe("context-overflow");
    expect(error.data).toEqual({ promptTokens: 64, maxContext: 64 });
    expect(create({ promptTokens: new Array(63).fill(1) }).sequences[0]?.maxTokens).toBe(1);
  });

  it("clips the output to the context", () => {
    expect(create({ maxTokens: 1000 }).sequences[0]?.maxTokens).toBe(61);
  });

  it("refuses what could never fit the pool, with the numbers", () => {
    const limits = { ...LIMITS, maxContext: 1000 };
    const error = errorOf({ maxTokens: 62 }, limits);
    expect(error.code).toBe("kv-pool-too-small");
    expect(error.data).toMatchObject({ needed: 5, total: 4 });
    expect(error.message).toMatch(/5 KV blocks.*pool has 4/);
    expect(create({ maxTokens: 61 }, limits).sequences).toHaveLength(1);
  });

  it("numbers the samples and adds the index to the 64-bit seed", () => {
    const seed = [0xffffffff, 5] as const;
    const { sequences, numUnfinished } = create({ n: 3, sampling: { ...GREEDY, seed } });
    expect(numUnfinished).toBe(3);
    expect(sequences.map(({ index, arrival }) => [index, arrival])).toEqual([
      [0, 10],
      [1, 11],
      [2, 12],
    ]);
    expect(sequences.map(({ sampling }) => sampling.seed)).toEqual([
      [0xffffffff, 5],
      [0, 6],
      [1, 6],
    ]);
  });

  it("stops at the model's end tokens unless told to ignore them", () => {
    const stopsAt = (fields: Partial<EngineRequest>) => [
      ...create(fields).sequences[0]!.stopTokens,
    ];
    expect(stopsAt({ stopTokenIds: [9] })).toEqual([9, 2]);
    expect(stopsAt({ stopTokenIds: [9], ignoreEos: true })).toEqual([9]);
  });

  it("keeps its own copy of the prompt", () => {
    const promptTokens = [1, 2, 3];
    const { sequences } = create({ promptTokens });
    promptTokens[0] = 9;
    expect(sequences[0]?.tokens).toEqual([1, 2, 3]);
  });
});
