import type { Linear } from "../backends/ops.ts";
import { QuireError } from "../errors.ts";
import type { GgufFile } from "../weights/gguf.ts";
import type { TensorInfo } from "../weights/tensorType.ts";
import type { ModelConfig } from "./config.ts";

/** The tensors of one layer by role. [outputs, inputs] */
export interface LayerTensors {
  readonly attentionNorm: TensorInfo; // [1, width]
  readonly q: Linear; // [numHeads * headDim, width]
  readonly k: Linear; // [numKvHeads * headDim, width]
  readonly v: Linear; // [numKvHeads * headDim, width]
  readonly headNorms: { readonly q: TensorInfo; readonly k: TensorInfo } | undefined; // [1, headDim]
  readonly attentionOutput: Linear; // [width, numHeads * headDim]
  readonly ffnNorm: TensorInfo; // [1, width]
  readonly gate: Linear; // [ffnWidth, width]
  readonly up: Linear; // [ffnWidth, width]
  readonly down: Linear; // [width, ffnWidth]
}

/** All tensors of a model by role. */
export interface ModelTensors {
  readonly embedding: TensorInfo; // [vocabularySize, width]
  readonly layers: readonly LayerTensors[];
  readonly outputNorm: TensorInfo; // [1, width]
  /** The embedding itself where the output is tied. */
  readonly head: TensorInfo; // [vocabularySize, width]
}

/** Tensors that a file may hold beside the model's own: read elsewhere, or tables of old converters. */
const OTHER_TENSORS = /^rope_freqs\.weight$|^blk\.\d+\.attn_rot_embd\.weight$/;

/**
 * Finds every tensor of the model and checks its shape. Throws `model-invalid` that names a missing
 * or misshapen tensor, and `model-unsupported` for one that this forward pass would leave out.
 */
export function readModelTensors(gguf: GgufFile, config: ModelConfig): ModelTensors {
  const used = new Set<string>();

  const tensor = (name: string, rows: number, columns: number): TensorInfo => {
    const found = gguf.tensors.get(name);
    const expected = `[${rows}, ${columns}]`;
    if (!found) {
      throw new QuireError(
        "model-invalid",
        `The model has no tensor "${name}" of ${expected}. The file is incomplete or of another architecture than it says ("${config.architecture}").`,
        { tensor: name, expected, found: null },
      );
    }
    if (found.rows !== rows || found.columns !== columns) {
      const shape = `[${found.rows}, ${found.columns}]`;
      throw new QuireError(
        "model-invalid",
        `The model's tensor "${name}" has the shape ${shape}; the metadata ask for ${expected}. Convert the model again.`,
        { tensor: name, expected, found: shape },
      );
    }
    used.add(name);
    return found;
  };

  const vector = (name: string, length: number): TensorInfo => {
    const found = tensor(name, 1, length);
    if (found.type === "F32") return found;
    throw new QuireError(
      "model-unsupported",
      `The model's tensor "${name}" is of the type ${found.type}; Quire runs norms and biases of F32.`,
      { tensor: name, type: found.type },
    );
  };

  const linear = (name: string, rows: number, columns: number): Linear => ({
    weight: tensor(`${name}.weight`, rows, columns),
    bias: gguf.tensors.has(`${name}.bias`) ? vector(`${name}.bias`, rows) : undefined,
  });

  const qkv = (name: string, rows: number, columns: number): Linear => {
    const { weight, bias } = linear(name, rows, columns);
    // Qwen2 has these biases always: without one the file is incomplete.
    const isRequired = config.architecture === "qwen2";
    return { weight, bias: isRequired ? vector(`${name}.bias`, rows) : bias };
  };

  const { width, ffnWidth, headDim, vocabularySize } = config;
  const qWidth = config.numHeads * headDim;
  const kvWidth = config.numKvHeads * headDim;

  const layer = (index: number): LayerTensors => {
    const blk = `blk.${index}`;
    return {
      attentionNorm: vector(`${blk}.attn_norm.weight`, width),
      q: qkv(`${blk}.attn_q`, qWidth, width),
      k: qkv(`${blk}.attn_k`, kvWidth, width),
      v: qkv(`${blk}.attn_v`, kvWidth, width),
      headNorms: config.hasHeadNorms
        ? {
            q: vector(`${blk}.attn_q_norm.weight`, headDim),
            k: vector(`${blk}.attn_k_norm.weight`, headDim),
          }
        : undefined,
      attentionOutput: linear(`${blk}.attn_output`, width, qWidth),
      ffnNorm: vector(`${blk}.ffn_norm.weight`, width),
      gate: linear(`${blk}.ffn_gate`, ffnWidth, width),
      up: linear(`${blk}.ffn_up`, ffnWidth, width),
      down: linear(`${blk}.ffn_down`, width, ffnWidth),
    };
  };

  const embedding = tensor("token_embd.weight", vocabularySize, width);
  const tensors: ModelTensors = {
    embedding,
    layers: Array.from({ length: config.numLayers }, (_, index) => layer(index)),
    outputNorm: vector("output_norm.weight", width),
    head: config.tiedOutput ? embedding : tensor("output.weight", vocabularySize, width),
  };
  for (const name of gguf.tensors.keys()) {
    if (used.has(name) || OTHER_TENSORS.test(name)) continue;
    throw new QuireError(
      "model-unsupported",
      `The model has a tensor "${name}" that Quire's "${config.architecture}" does not use: it would run wrong without it.`,
      { tensor: name },
    );
  }
  return tensors;
}
