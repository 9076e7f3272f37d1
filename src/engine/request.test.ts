import { describe, expect, it } from "vitest";
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

function create(fields: Partial<EngineRequest>) {
  const request: EngineRequest = {
    id: "a",
    promptTokens: [1, 2, 3],
    n: 1,
    maxTokens: 5,
    stopTokenIds: [],
    sampling: GREEDY,
    ...fields,
  };
  return createRequest(request, LIMITS, 10);
}

describe("createRequest", () => {
  it("refuses what the checks refuse", () => {
    expect(() => create({ promptTokens: [] })).toThrow(/prompt is empty/);
  });

  it("clips the output to the context", () => {
    expect(create({ maxTokens: 1000 }).sequences[0]?.maxTokens).toBe(61);
    expect(create({ promptTokens: new Array(63).fill(1) }).sequences[0]?.maxTokens).toBe(1);
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
