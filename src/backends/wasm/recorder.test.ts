import { describe, expect, it } from "vitest";
import { planSpec } from "../../model/planSpec.ts";
import { makeRopeSpec } from "../../model/rope.ts";
import type { PlanSpec } from "../ops.ts";
import { KV_SPLIT } from "./abi.ts";
import { Arena } from "./arena.ts";
import { compileKernels } from "./kernelModule.ts";
import { Recorder } from "./recorder.ts";
import { partialBytes } from "./workList.ts";

const kernels = await compileKernels("plain", false);

interface Model {
  readonly name: string;
  readonly numLayers: number;
  readonly width: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly contextLength: number;
}

const LLAMA_1B: Model = {
  name: "Llama-3.2-1B",
  numLayers: 16,
  width: 2048,
  numHeads: 32,
  numKvHeads: 8,
  headDim: 64,
  contextLength: 131_072,
};
const LONG_MODELS: readonly Model[] = [
  LLAMA_1B,
  { ...LLAMA_1B, name: "Llama-3.2-3B", numLayers: 28, width: 3072, numHeads: 24, headDim: 128 },
  { ...LLAMA_1B, name: "Llama-3.1-8B", numLayers: 32, width: 4096, headDim: 128 },
  {
    name: "Qwen3-0.6B",
    numLayers: 28,
    width: 1024,
    numHeads: 16,
    numKvHeads: 8,
    headDim: 128,
    contextLength: 40_960,
  },
];

function specOf(model: Model, options: Parameters<typeof planSpec>[1] = {}): PlanSpec {
  const rope = makeRopeSpec({
    pairing: "neox",
    rotaryDims: model.headDim,
    freqBase: 500_000,
    scaling: { type: "none" },
    attentionFactor: 1,
    factors: undefined,
  });
  const config = {
    ...model,
    architecture: "llama",
    ffnWidth: 4 * model.width,
    rmsEpsilon: 1e-5,
    rope,
    vocabularySize: 128_256,
    tiedOutput: true,
    hasHeadNorms: false,
  } as const;
  return planSpec(config, options);
}

function record(spec: PlanSpec): Recorder {
  const context = {
    precision: "fast",
    threads: 1,
    openThreads: () => Promise.reject(new Error("One thread needs no other.")),
    kernels,
  } as const;
  const recorder = new Recorder(spec, new Arena(), context);
  recorder.attention(0); // what is sized by the context
  return recorder;
}

describe("models of long contexts", () => {
  it.each(LONG_MODELS)("$name runs 16 sequences and computes prompts in wide steps", (model) => {
    const { maxRows, memory } = record(specOf(model));
    expect(maxRows).toBeGreaterThanOrEqual(48);
    expect(memory.scratch).toBeLessThan(100 * 2 ** 20);
  });

  it.each(LONG_MODELS)("$name keeps them over a pool of 2 GiB", (model) => {
    const { maxRows, memory } = record(specOf(model, { kvCacheBytes: 2 ** 31 }));
    expect(maxRows).toBeGreaterThanOrEqual(16);
    expect(memory.scratch).toBeLessThan(2 ** 31 / 6);
  });

  it("a context that the pool does not hold costs nothing", () => {
    const declared = record(specOf({ ...LLAMA_1B, contextLength: 2 ** 26 }, { kvBlocks: 100 }));
    const reachable = record(specOf({ ...LLAMA_1B, contextLength: 1600 }, { kvBlocks: 100 }));
    expect(declared.maxRows).toBe(reachable.maxRows);
    expect(declared.memory).toEqual(reachable.memory);
  });
});

it("bounds the rows of a step by what their partial results take", () => {
  // Its blocks are so small that the pool holds the whole context.
  const { maxRows } = record(specOf({ ...LLAMA_1B, numLayers: 1, numKvHeads: 1 }));
  const aRow = (131_072 / KV_SPLIT) * partialBytes(32, 64);
  expect(maxRows).toBe(Math.floor((64 * 2 ** 20) / aRow));
});
