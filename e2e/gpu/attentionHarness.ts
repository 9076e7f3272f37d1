import type { Plan, PlanSpec } from "../../src/backends/ops.ts";
import type { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import { type KernelFamily, LINEAR_TOKENS } from "../../src/backends/webgpu/kernelChoice.ts";
import { bufferLimits } from "../../src/backends/webgpu/limits.ts";
import { WebGpuPlanBuilder } from "../../src/backends/webgpu/planBuilder.ts";
import type { Step } from "../../src/engine/step.ts";
import { invariant } from "../../src/errors.ts";
import { rowByteLength, type TensorInfo } from "../../src/weights/tensorType.ts";
import { EMPTY_STEP } from "../fixtures/emptyStep.ts";
import { Random } from "../fixtures/random.ts";

const WIDTH = 32; // of the stream: the least that the kernels take
const VOCABULARY = 64;
const EPSILON = 1e-5;

export interface AttentionOptions
  extends Pick<
    PlanSpec,
    "numHeads" | "numKvHeads" | "headDim" | "kvCacheDtype" | "blockSize" | "rope" | "maxContext"
  > {
  readonly family: KernelFamily;
  readonly hasHeadNorms: boolean;
  readonly numBlocks: number;
  readonly maxSequences: number;
  /** Deviation of q and k: scores have about its square. */
  readonly keyGain: number;
}

/** What the plan's buffers hold after a step. */
export interface AttentionState {
  /** [rows][(numHeads + 2 numKvHeads) * headDim] */
  readonly qkv: Float32Array;
  /** [rows][numHeads * headDim], turned. */
  readonly queries: Float32Array;
  /** [rows][numHeads * headDim] */
  readonly mixed: Float32Array;
  /** [numBlocks][K|V][numKvHeads][blockSize][headDim], f16 pairs or f32 in words. */
  readonly pool: Uint32Array<ArrayBuffer>;
  /** [maxSequences][blocks a sequence] */
  readonly blockTables: Uint32Array;
}

/** Changes the words of a step's upload; counts and offsets are as in shaders/common/step.wgsl. */
export type StepPatch = (words: Uint32Array) => void;

/** A plan of one attention layer whose buffers are open to see and to fill. */
export interface AttentionHarness {
  readonly spec: PlanSpec;
  /** Gains of the q and k heads' norms. */
  readonly gains: { readonly q: Float32Array; readonly k: Float32Array } | undefined;
  writePool(words: Uint32Array<ArrayBuffer>): void;
  run(step: Pick<Step, "rows" | "blockTableEntries">, patch?: StepPatch): Promise<AttentionState>;
  dispose(): void;
}

export async function createAttentionHarness(
  device: GPUDevice,
  kernels: KernelCache,
  options: AttentionOptions,
): Promise<AttentionHarness> {
  const { numHeads, numKvHeads, headDim, hasHeadNorms, keyGain, family, ...rest } = options;
  const spec: PlanSpec = {
    ...rest,
    numHeads,
    numKvHeads,
    headDim,
    numLayers: 1,
    width: WIDTH,
    vocabularySize: VOCABULARY,
    rmsEpsilon: EPSILON,
    minBlocks: options.numBlocks,
    numHostBlocks: 0,
    maxRows: 32,
  };
  const random = new Random(headDim + numHeads);
  const data = new Map<TensorInfo, Float32Array<ArrayBuffer>>();
  const tensor = (name: string, rows: number, columns: number, mean: number, deviation: number) => {
    const byteLength = rows * rowByteLength({ type: "F32", columns });
    const info: TensorInfo = { name, type: "F32", rows, columns, byteOffset: 0, byteLength };
    const values = Float32Array.from(
      { length: rows * columns },
      () => mean + deviation * random.normal(),
    );
    data.set(info, values);
    return info;
  };
  const linear = (name: string, rows: number, columns: number, deviation: number) => ({
    weight: tensor(name, rows, columns, 0, deviation / Math.sqrt(columns)),
    bias: undefined,
  });

  const builder = new WebGpuPlanBuilder(device, kernels, bufferLimits(device), spec, {
    family,
    linearTokens: LINEAR_TOKENS,
  });
  const table = tensor("table", VOCABULARY, WIDTH, 0, 1);
  const x = builder.embed(table);
  const qkv = builder.normLinear(x, tensor("norm", 1, WIDTH, 1, 0.2), [
    linear("q", numHeads * headDim, WIDTH, keyGain),
    linear("k", numKvHeads * headDim, WIDTH, keyGain),
    linear("v", numKvHeads * headDim, WIDTH, 1),
  ]);
  const norms = hasHeadNorms
    ? { q: tensor("qNorm", 1, headDim, 1, 0.2), k: tensor("kNorm", 1, headDim, 1, 0.2) }
    : undefined;
  const q = builder.ropeWriteKv(0, qkv, norms);
  const mixed = builder.attention(0, q);
  const end = builder.linearAdd(x, mixed, linear("o", WIDTH, numHeads * headDim, 1));
  builder.sampleLogits(end, tensor("endNorm", 1, WIDTH, 1, 0), table);

  const buffers = new Map<string, GPUBuffer>();
  const { createBuffer } = device;
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer.call(device, descriptor);
    buffers.set(descriptor.label ?? "", buffer);
    return buffer;
  };
  let plan: Plan;
  try {
    plan = await builder.finish();
  } finally {
    device.createBuffer = createBuffer;
  }
  for (const info of plan.tensors) {
    await plan.writeRows(info, 0, new Uint8Array(data.get(info)!.buffer));
  }
  const buffer = (label: string): GPUBuffer => {
    const found = buffers.get(label);
    invariant(found, `The plan has no buffer ${label}.`);
    return found;
  };
  let numSteps = 0;

  return {
    spec,
    gains: norms && { q: data.get(norms.q)!, k: data.get(norms.k)! },
    writePool: (words) => device.queue.writeBuffer(buffer("KV pool, layers 0 to 0"), 0, words),
    async run({ rows, blockTableEntries }, patch) {
      const { queue } = device;
      const { writeBuffer } = queue;
      if (patch) {
        queue.writeBuffer = (to: GPUBuffer, offset: number, words: unknown, ...range: number[]) => {
          if (to === buffer("step")) patch(words as Uint32Array);
          return writeBuffer.call(queue, to, offset, words as Uint32Array<ArrayBuffer>, ...range);
        };
      }
      const step = { ...EMPTY_STEP, id: numSteps++, blockTableEntries, rows };
      const { result } = plan.submit(step);
      queue.writeBuffer = writeBuffer;
      await result;
      const names = ["projected", "queries", "mixed", "KV pool, layers 0 to 0", "blockTables"];
      const found = await Promise.all(names.map((name) => readBuffer(device, buffer(name))));
      const floats = (i: number) => new Float32Array(found[i]!);
      const words = (i: number) => new Uint32Array(found[i]!);
      return {
        qkv: floats(0),
        queries: floats(1),
        mixed: floats(2),
        pool: words(3),
        blockTables: words(4),
      };
    },
    dispose: () => plan.dispose(),
  };
}

async function readBuffer(device: GPUDevice, source: GPUBuffer): Promise<ArrayBuffer> {
  const { MAP_READ, COPY_DST } = GPUBufferUsage;
  const readback = device.createBuffer({ size: source.size, usage: MAP_READ | COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(source, 0, readback, 0, source.size);
  device.queue.submit([encoder.finish()]);
  await readback.mapAsync(GPUMapMode.READ);
  const bytes = readback.getMappedRange().slice(0);
  readback.destroy();
  return bytes;
}
