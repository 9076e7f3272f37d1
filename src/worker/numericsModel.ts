import type { Linear, PlanBuilder, PlanSpec } from "../backends/ops.ts";
import { rowByteLength, type TensorInfo, type TensorType } from "../weights/tensorType.ts";

// One-layer models of made-up weights that between them use every kind of kernel: an adapter that gets
// them wrong would talk nonsense in real models.

export const VOCABULARY = 40;
export const BLOCK_SIZE = 16;
export const NUM_BLOCKS = 20;
/** Rows of the largest step: more than one KV split (256), so that attention is merged. */
export const PROMPT_TOKENS = 261;
/** Rows whose logits a step may want: the widest variant of the kernels takes as many. */
export const MAX_SEQUENCES = 8;

/** What the models share, so that the second needs few kernels that the first has not. */
const SHARED: Omit<PlanSpec, "width" | "rope"> = {
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 64,
  vocabularySize: VOCABULARY,
  rmsEpsilon: 1e-5,
  kvCacheDtype: "f16",
  blockSize: BLOCK_SIZE,
  numBlocks: NUM_BLOCKS,
  minBlocks: NUM_BLOCKS,
  numHostBlocks: 1,
  maxSequences: MAX_SEQUENCES,
  maxContext: 320,
  maxRows: PROMPT_TOKENS + 1,
};

const frequencies = Float64Array.from({ length: 32 }, (_, i) => 10_000 ** (-i / 32));

export interface NumericsModel {
  readonly spec: PlanSpec;
  readonly ffnWidth: number;
  /** Type of the projections to q, k and v, which have biases and head norms or neither. */
  readonly projectionType: TensorType;
  readonly hasBiasesAndNorms: boolean;
}

/** As `llama` has it, in Q4_1. */
export const PLAIN_MODEL: NumericsModel = {
  spec: { ...SHARED, width: 64, rope: { pairing: "adjacent", frequencies, magnitude: 1 } },
  ffnWidth: 96,
  projectionType: "Q4_1",
  hasBiasesAndNorms: false,
};

/**
 * As `qwen2` (biases) and `qwen3` (head norms) have it, with projections in a K-quant. So wide that a workgroup's
 * threads share K, where the adapter has such kernels: in two slices, and in four with one that is idle.
 */
export const NORMED_MODEL: NumericsModel = {
  spec: { ...SHARED, width: 512, rope: { pairing: "neox", frequencies, magnitude: 1 } },
  ffnWidth: 544,
  projectionType: "Q4_K",
  hasBiasesAndNorms: true,
};

/** Records a model's forward pass. Returns its tensors: their places in the list are their seeds. */
export function recordModel(builder: PlanBuilder, model: NumericsModel): readonly TensorInfo[] {
  const { ffnWidth } = model;
  const { width, headDim, numHeads } = model.spec;
  const tensors: TensorInfo[] = [];
  const tensor = (name: string, type: TensorType, rows: number, columns: number): TensorInfo => {
    const byteLength = rows * rowByteLength({ type, columns });
    const info = { name, type, rows, columns, byteOffset: 0, byteLength };
    tensors.push(info);
    return info;
  };
  const vector = (name: string, length = width) => tensor(name, "F32", 1, length);
  const linear = (name: string, rows: number, columns: number): Linear => ({
    weight: tensor(name, "Q4_1", rows, columns),
    bias: undefined,
  });
  const projection = (name: string, rows: number): Linear => ({
    weight: tensor(name, model.projectionType, rows, width),
    bias: model.hasBiasesAndNorms ? vector(`${name} bias`, rows) : undefined,
  });
  const headNorms = () => ({ q: vector("q norm", headDim), k: vector("k norm", headDim) });

  const table = tensor("table", "Q8_0", VOCABULARY, width);
  let x = builder.embed(table); // [width]
  const heads = numHeads * headDim;
  const projections = [projection("q", heads), projection("k", headDim), projection("v", headDim)];
  const qkv = builder.normLinear(x, vector("attention norm"), projections); // [heads + 2 headDim]
  const q = builder.ropeWriteKv(0, qkv, model.hasBiasesAndNorms ? headNorms() : undefined); // [heads]
  x = builder.linearAdd(x, builder.attention(0, q), linear("output", width, heads)); // [width]
  const gate = linear("gate", ffnWidth, width);
  const up = linear("up", ffnWidth, width);
  x = builder.gatedMlp(x, vector("ffn norm"), gate, up, linear("down", width, ffnWidth)); // [width]
  builder.sampleLogits(x, vector("output norm"), table); // [vocabulary]
  return tensors;
}

/** Blocks of random quants with scales that keep activations near 1. */
export function makeWeights(tensor: TensorInfo, seed: number): Uint8Array<ArrayBuffer> {
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 16; // the low bits of such a generator repeat soon
  };
  const bytes = new Uint8Array(tensor.byteLength);
  const view = new DataView(bytes.buffer);
  if (tensor.type === "F32") {
    for (let at = 0; at < bytes.length; at += 4)
      view.setFloat32(at, 0.75 + random() / 2 ** 17, true);
    return bytes;
  }
  const { blockBytes, halves } = BLOCK_SCALES[tensor.type as keyof typeof BLOCK_SCALES];
  const halving = tensor.columns < 256 ? 0 : 0x400; // rows of four times the length sum to twice as much
  for (let i = 0; i < bytes.length; i++) bytes[i] = random();
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const [i, least] of halves.entries()) {
      view.setUint16(at + 2 * i, least - halving + (random() & 0x3ff), true); // up to twice the least
    }
  }
  return bytes;
}

/** How large blocks are, and the halves at their starts: the least of each, as bits, in rows of 64. */
const BLOCK_SCALES = {
  Q4_1: { blockBytes: 20, halves: [0x2800, 0xb400] }, // scale 2^-5, minimum -1/4
  Q8_0: { blockBytes: 34, halves: [0x2000] }, // scale 2^-7
  Q4_K: { blockBytes: 144, halves: [0x1400, 0x2000] }, // scale of scales 2^-10, of minima 2^-7
} as const;
