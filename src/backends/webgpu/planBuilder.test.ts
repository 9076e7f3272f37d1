import { beforeAll, describe, expect, test } from "vitest";
import { EMPTY_STEP } from "../../../e2e/fixtures/emptyStep.ts";
import type { ModelConfig } from "../../model/config.ts";
import { recordForward } from "../../model/forward.ts";
import { type PlanOptions, planSpec } from "../../model/planSpec.ts";
import type { ModelTensors } from "../../model/tensors.ts";
import { rowByteLength, type TensorInfo, type TensorType } from "../../weights/tensorType.ts";
import type { Plan } from "../ops.ts";
import { createWebGpuBackend } from "./backend.ts";
import type { KernelChoice } from "./kernelChoice.ts";
import {
  FakeDevice,
  type FakeDeviceOptions,
  fakeGpu,
  installGpuGlobals,
} from "./testing/fakeDevice.ts";

const MIB = 2 ** 20;

beforeAll(installGpuGlobals);

type Shape = Pick<
  ModelConfig,
  "numLayers" | "width" | "numHeads" | "numKvHeads" | "headDim" | "ffnWidth" | "contextLength"
>;

const LLAMA_1B: Shape = {
  numLayers: 16,
  width: 2048,
  numHeads: 32,
  numKvHeads: 8,
  headDim: 64,
  ffnWidth: 8192,
  contextLength: 131_072,
};
const LLAMA_8B: Shape = { ...LLAMA_1B, numLayers: 32, width: 4096, headDim: 128, ffnWidth: 14_336 };
const QWEN_1M: Shape = {
  numLayers: 28,
  width: 3584,
  numHeads: 28,
  numKvHeads: 4,
  headDim: 128,
  ffnWidth: 18_944,
  contextLength: 1_010_000,
};

function configOf(shape: Shape): ModelConfig {
  const frequencies = Float64Array.from({ length: shape.headDim / 2 }, (_, i) => 1 / (i + 1));
  return {
    ...shape,
    architecture: "llama",
    rmsEpsilon: 1e-5,
    rope: { pairing: "adjacent", frequencies, magnitude: 1 },
    vocabularySize: 32_000,
    tiedOutput: true,
    hasHeadNorms: false,
  };
}

function tensorsOf(config: ModelConfig): ModelTensors {
  const { width, numHeads, numKvHeads, headDim, ffnWidth, vocabularySize } = config;
  const tensor = (name: string, rows: number, columns: number, type: TensorType): TensorInfo => {
    const byteLength = rows * rowByteLength({ type, columns });
    return { name, type, rows, columns, byteOffset: 0, byteLength };
  };
  const vector = (name: string) => tensor(name, 1, width, "F32");
  const embedding = tensor("embedding", vocabularySize, width, "Q6_K");
  const layer = (index: number) => {
    const linear = (name: string, rows: number, columns: number) => ({
      weight: tensor(`${name} ${index}`, rows, columns, "Q4_K"),
      bias: undefined,
    });
    return {
      attentionNorm: vector(`attention norm ${index}`),
      q: linear("q", numHeads * headDim, width),
      k: linear("k", numKvHeads * headDim, width),
      v: linear("v", numKvHeads * headDim, width),
      headNorms: undefined,
      attentionOutput: linear("o", width, numHeads * headDim),
      ffnNorm: vector(`ffn norm ${index}`),
      gate: linear("gate", ffnWidth, width),
      up: linear("up", ffnWidth, width),
      down: linear("down", width, ffnWidth),
    };
  };
  const layers = Array.from({ length: config.numLayers }, (_, index) => layer(index));
  return { embedding, layers, outputNorm: vector("output norm"), head: embedding };
}

interface Built {
  readonly device: FakeDevice;
  readonly plan: Plan;
}

async function build(
  shape: Shape,
  options: PlanOptions = {},
  deviceOptions: FakeDeviceOptions = {},
  kernels: Partial<KernelChoice> = {},
): Promise<Built> {
  const config = configOf(shape);
  const device = new FakeDevice(deviceOptions);
  const gpu = fakeGpu(device);
  const backend = await createWebGpuBackend({ gpu, kernels });
  const builder = backend.createPlanBuilder(planSpec(config, options));
  recordForward(builder, { tensors: tensorsOf(config) });
  return { device, plan: await builder.finish() };
}

function bytesOf({ device }: Built, label: string): number {
  return [...device.live].find((buffer) => buffer.label === label)!.size;
}

describe("models whose context is longer than the KV pool", () => {
  test.each([
    ["Llama-3.2-1B", LLAMA_1B, 8192, 240],
    ["Llama-3.1-8B", LLAMA_8B, 2048, 256],
    ["Qwen2.5-7B-1M", QWEN_1M, 4672, 238],
  ])(
    "%s has wide steps, and no table for positions that nobody reaches",
    async (_, shape, positions, maxRows) => {
      const built = await build(shape);
      expect(built.plan.numBlocks * 16).toBe(positions);
      expect(built.plan.maxRows).toBe(maxRows);
      expect(bytesOf(built, "rotations")).toBe(positions * (shape.headDim / 2) * 8);
      expect(bytesOf(built, "blockTables")).toBe(16 * (positions / 16) * 4);
      expect(bytesOf(built, "mixed")).toBeLessThan(72 * MIB);
      expect(bytesOf(built, "step")).toBeLessThan(MIB);
    },
  );

  test("a pool that bindings cut down bounds them too", async () => {
    const limits = { maxBufferSize: 2 ** 32, memoryBytes: 2 ** 40 };
    const built = await build(LLAMA_8B, { kvCacheBytes: 2 ** 36 }, limits);
    expect(built.plan.numBlocks).toBe(2048); // layers of 128 MiB
    expect(bytesOf(built, "rotations")).toBe(32_768 * 64 * 8);
  });

  test("a pool that comes out smaller for want of memory leaves the steps as they are", async () => {
    const whole = await build(LLAMA_1B);
    const memoryBytes = whole.device.usedBytes - 50 * MIB;
    const { plan } = await build(LLAMA_1B, {}, { memoryBytes });
    expect(plan.numBlocks).toBe(whole.plan.numBlocks / 2);
    expect(plan.maxRows).toBe(whole.plan.maxRows);
  });

  test("a pool that holds the context gives the sizes that the context asks for", async () => {
    const built = await build({ ...LLAMA_1B, contextLength: 1000 });
    expect(bytesOf(built, "rotations")).toBe(1000 * 32 * 8);
    expect(built.plan.maxRows).toBe(256);
  });
});

test("a second plan of the same sizes compiles nothing", async () => {
  const config = configOf(LLAMA_1B);
  const device = new FakeDevice();
  const backend = await createWebGpuBackend({ gpu: fakeGpu(device) });
  const open = async () => {
    const builder = backend.createPlanBuilder(planSpec(config));
    recordForward(builder, { tensors: tensorsOf(config) });
    (await builder.finish()).dispose();
    return device.pipelines.length;
  };
  const numPipelines = await open();
  expect(numPipelines).toBeGreaterThan(20);
  expect(await open()).toBe(numPipelines);
});

describe("the linear kernels' variants", () => {
  const runRows = async (count: number, kernels: Partial<KernelChoice>) => {
    const built = await build({ ...LLAMA_1B, contextLength: 1000, numLayers: 1 }, {}, {}, kernels);
    const { device, plan } = built;
    const rows = Array.from({ length: count }, (_, position) => {
      return { slot: 0, token: 1, position, kvSlot: position };
    });
    await plan.submit({ ...EMPTY_STEP, rows }).result;
    const linear = (label: string) => /^linear .*TOKENS=(\d+)$/.exec(label)?.[1];
    const isLinear = ({ pipeline }: { readonly pipeline: string }) =>
      linear(pipeline) !== undefined;
    return {
      compiled: new Set(device.pipelines.map(linear).filter((tokens) => tokens !== undefined)),
      ran: device.dispatches
        .filter(isLinear)
        .map(({ pipeline, grid }) => `${linear(pipeline)} x ${grid[1]}`),
      threads: device.dispatches.filter(isLinear).map(({ grid }) => 64 * grid[0]!),
    };
  };

  test.each([
    [1, "1 x 1"],
    [2, "2 x 1"],
    [3, "4 x 1"],
    [8, "8 x 1"],
    [9, "8 x 2"],
  ])("%i rows run %s of them: the smallest that covers the rows", async (count, expected) => {
    const { ran } = await runRows(count, { family: "flat" });
    expect(new Set(ran)).toEqual(new Set([expected]));
  });

  test("share K for few rows, and take 8 rows each where there are threads enough", async () => {
    // q, k, v; output; gate and up; down: 3072, 2048, 2 x 8192 and 2048 outputs, so 768, 512, 4096 and 512 groups.
    const flat = await runRows(1, { family: "flat" });
    expect(flat.threads).toEqual([768, 512, 4096, 512]);
    const one = await runRows(1, {});
    expect(one.threads).toEqual([768 * 8, 512 * 8, 4096 * 2, 512 * 8]);
    expect(one.ran).toEqual(["1 x 1", "1 x 1", "1 x 1", "1 x 1"]);
    const nine = await runRows(9, {});
    expect(nine.threads).toEqual([768 * 8, 512 * 8, 4096, 512 * 8]);
    expect(nine.ran).toEqual(["4 x 3", "4 x 3", "8 x 2", "4 x 3"]);
    const many = await runRows(128, {});
    expect(many.threads).toEqual([768, 512, 4096, 512]);
    expect(many.ran).toEqual(["8 x 16", "8 x 16", "8 x 16", "8 x 16"]);
  });

  test("one that is given alone runs all rows, and no other is compiled", async () => {
    for (const [count, expected] of [
      [1, "4 x 1"],
      [4, "4 x 1"],
      [9, "4 x 3"],
    ] as const) {
      const { compiled, ran } = await runRows(count, { linearTokens: [4] });
      expect(compiled).toEqual(new Set(["4"]));
      expect(new Set(ran)).toEqual(new Set([expected]));
    }
  });
});
