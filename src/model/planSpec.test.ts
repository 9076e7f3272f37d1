import { describe, expect, test } from "vitest";
import type { ModelConfig } from "./config.ts";
import { DEFAULT_KV_CACHE_BYTES, DEFAULT_SWAP_BYTES, kvBlockBytes, planSpec } from "./planSpec.ts";
import { makeRopeSpec } from "./rope.ts";

/** SmolLM2-135M-Instruct. */
const CONFIG: ModelConfig = {
  architecture: "llama",
  numLayers: 30,
  width: 576,
  numHeads: 9,
  numKvHeads: 3,
  headDim: 64,
  ffnWidth: 1536,
  contextLength: 8192,
  rmsEpsilon: 1e-5,
  rope: makeRopeSpec({
    pairing: "adjacent",
    rotaryDims: 64,
    freqBase: 100_000,
    scaling: { type: "none" },
    attentionFactor: 1,
    factors: undefined,
  }),
  vocabularySize: 49_152,
  tiedOutput: true,
  hasHeadNorms: false,
};

describe("planSpec", () => {
  test("a block's bytes", () => {
    expect(kvBlockBytes(CONFIG, 16, "f16")).toBe(368_640);
    expect(kvBlockBytes(CONFIG, 32, "f32")).toBe(4 * 368_640);
  });

  test("defaults", () => {
    expect(planSpec(CONFIG)).toMatchObject({
      numLayers: 30,
      width: 576,
      vocabularySize: 49_152,
      blockSize: 16,
      kvCacheDtype: "f16",
      numBlocks: Math.floor(DEFAULT_KV_CACHE_BYTES / 368_640),
      minBlocks: 4,
      numHostBlocks: Math.floor(DEFAULT_SWAP_BYTES / 368_640),
      maxContext: 8192,
    });
  });

  test("the default pool is no larger than all sequences can fill", () => {
    expect(planSpec(CONFIG, { maxSequences: 2, maxContext: 100 }).numBlocks).toBe(14);
    expect(planSpec(CONFIG, { maxSequences: 1, maxContext: 1 }).numBlocks).toBe(4);
  });

  test("bytes or blocks may be given", () => {
    expect(planSpec(CONFIG, { kvCacheBytes: 10 * 368_640 + 1 }).numBlocks).toBe(10);
    expect(
      planSpec(CONFIG, { kvCacheBytes: 2e6, kvCacheDtype: "f32", blockSize: 8 }).numBlocks,
    ).toBe(5);
    expect(planSpec(CONFIG, { kvBlocks: 64, kvCacheBytes: 1 }).numBlocks).toBe(64);
    expect(planSpec(CONFIG, { kvBlocks: 2 }).minBlocks).toBe(2);
  });

  test("the host tier has as many blocks as its bytes hold, or none", () => {
    expect(planSpec(CONFIG, { swapBytes: 5 * 368_640 - 1 }).numHostBlocks).toBe(4);
    const small = { kvCacheDtype: "f16", blockSize: 8 } as const;
    expect(planSpec(CONFIG, { swapBytes: 368_640, ...small }).numHostBlocks).toBe(2);
    expect(planSpec(CONFIG, { swapBytes: 0 }).numHostBlocks).toBe(0);
  });

  test("bytes for less than a few blocks are refused with the numbers", () => {
    expect(() => planSpec(CONFIG, { kvCacheBytes: 1_000_000 })).toThrow(
      expect.objectContaining({
        code: "kv-pool-too-small",
        message: expect.stringMatching(/1000000.* 2 blocks of 368640 bytes.*1474560 bytes/),
      }),
    );
  });

  test.each([
    { blockSize: 12 as 16 },
    { kvCacheDtype: "int8" as "f16" },
    { maxSequences: 0 },
    { maxRows: 1.5 },
    { maxContext: 8193 },
    { kvBlocks: 0 },
    { kvCacheBytes: Number.NaN },
    { swapBytes: -1 },
    { swapBytes: 0.5 },
  ])("%o is an invalid argument", (options) => {
    const [name] = Object.keys(options);
    expect(() => planSpec(CONFIG, options)).toThrow(
      expect.objectContaining({
        code: "invalid-argument",
        message: expect.stringContaining(name!),
      }),
    );
  });
});
