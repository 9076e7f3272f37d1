import type { RopeSpec } from "../backends/ops.ts";
import { QuireError } from "../errors.ts";
import type { GgufFile } from "../weights/gguf.ts";
import { ModelMetadata } from "./metadata.ts";
import { makeRopeSpec, readRopeScaling } from "./rope.ts";

/** Architectures that Quire runs, by GGUF's names. */
export const ARCHITECTURES = ["llama", "qwen2", "qwen3"] as const;

export type Architecture = (typeof ARCHITECTURES)[number];

/** The numbers of a model. Every length is in values unless it says otherwise. */
export interface ModelConfig {
  readonly architecture: Architecture;
  readonly numLayers: number;
  /** Length of the residual stream's rows. */
  readonly width: number;
  readonly numHeads: number;
  /** Divides numHeads. */
  readonly numKvHeads: number;
  /** Even. Need not be width / numHeads. */
  readonly headDim: number;
  readonly ffnWidth: number;
  /** In tokens, as trained. */
  readonly contextLength: number;
  readonly rmsEpsilon: number;
  readonly rope: RopeSpec;
  readonly vocabularySize: number;
  /** The embedding serves as the output matrix too. */
  readonly tiedOutput: boolean;
  /** q and k heads are normed before RoPE (qwen3). */
  readonly hasHeadNorms: boolean;
}

/** What a file may claim. Far above any real model, low enough that products stay exact. */
export const MODEL_LIMITS = {
  layers: 1024,
  width: 2 ** 17,
  heads: 1024,
  headDim: 1024,
  ffnWidth: 2 ** 20,
  contextLength: 2 ** 26,
} as const;

/**
 * Reads a model's numbers from its metadata; `readModelTensors` checks the tensors against them.
 *
 * `ropeFactors` are the values of the tensor `rope_freqs.weight` where the file has one: `openModel`
 * reads them. Throws `model-unsupported` for an architecture or feature that Quire does not run, by
 * name, and `model-invalid` for metadata that are missing or contradict each other.
 */
export function readModelConfig(gguf: GgufFile, ropeFactors?: Float32Array): ModelConfig {
  const architecture = readArchitecture(gguf);
  const metadata = new ModelMetadata(gguf.metadata, architecture);

  const width = metadata.count("embedding_length", MODEL_LIMITS.width);
  const numHeads = metadata.count("attention.head_count", MODEL_LIMITS.heads);
  const numKvHeads = metadata.count("attention.head_count_kv", MODEL_LIMITS.heads, numHeads);
  if (numHeads % numKvHeads !== 0) {
    throw metadata.invalid("attention.head_count_kv", `a divisor of ${numHeads}`, numKvHeads);
  }
  const headDim = readHeadDim(metadata, width, numHeads);
  const contextLength = metadata.count("context_length", MODEL_LIMITS.contextLength);
  refuseUnsupportedFeatures(metadata, contextLength, headDim);

  return {
    architecture,
    numLayers: metadata.count("block_count", MODEL_LIMITS.layers),
    width,
    numHeads,
    numKvHeads,
    headDim,
    ffnWidth: metadata.count("feed_forward_length", MODEL_LIMITS.ffnWidth),
    contextLength,
    rmsEpsilon: metadata.positive("attention.layer_norm_rms_epsilon"),
    rope: readRope(gguf, metadata, { architecture, headDim, contextLength }, ropeFactors),
    vocabularySize: readVocabularySize(gguf),
    tiedOutput: !gguf.tensors.has("output.weight"),
    hasHeadNorms: architecture === "qwen3",
  };
}

function readArchitecture(gguf: GgufFile): Architecture {
  const name = gguf.metadata.get("general.architecture");
  const known = ARCHITECTURES.find((architecture) => architecture === name);
  if (known) return known;
  if (typeof name !== "string") {
    throw new QuireError(
      "model-invalid",
      `The file has no "general.architecture"; it is not a model. Quire runs ${ARCHITECTURES.join(", ")}.`,
    );
  }
  throw new QuireError(
    "model-unsupported",
    `The model's architecture is "${name.slice(0, 80)}"; Quire runs ${ARCHITECTURES.join(", ")}.`,
    { architecture: name.slice(0, 80) },
  );
}

function readHeadDim(metadata: ModelMetadata, width: number, numHeads: number): number {
  const share = width % numHeads === 0 ? width / numHeads : undefined;
  const keyLength = metadata.count("attention.key_length", MODEL_LIMITS.headDim, share);
  const valueLength = metadata.count("attention.value_length", MODEL_LIMITS.headDim, share);
  if (keyLength !== valueLength) {
    throw new QuireError(
      "model-unsupported",
      `The model's keys have ${keyLength} dimensions a head and its values ${valueLength}; Quire runs models where they are equal.`,
      { keyLength, valueLength },
    );
  }
  if (keyLength % 2 !== 0) {
    throw metadata.invalid("attention.key_length", "an even number", keyLength);
  }
  return keyLength;
}

function readVocabularySize(gguf: GgufFile): number {
  const embedding = gguf.tensors.get("token_embd.weight");
  if (!embedding) {
    throw new QuireError("model-invalid", `The model has no tensor "token_embd.weight".`, {
      tensor: "token_embd.weight",
    });
  }
  const tokens = gguf.metadata.get("tokenizer.ggml.tokens");
  if (Array.isArray(tokens) && tokens.length !== embedding.rows) {
    throw new QuireError(
      "model-invalid",
      `The model's tokenizer has ${tokens.length} tokens; its tensor "token_embd.weight" has ${embedding.rows} rows. Convert the model again.`,
      { tokens: tokens.length, rows: embedding.rows },
    );
  }
  return embedding.rows;
}

/** Features that some files of these architectures have and that would change the results. */
function refuseUnsupportedFeatures(
  metadata: ModelMetadata,
  contextLength: number,
  headDim: number,
): void {
  const refuse = (key: string, feature: string): never => {
    throw new QuireError(
      "model-unsupported",
      `The model uses ${feature} (metadata key "${metadata.key(key)}"), which Quire does not run.`,
      { key: metadata.key(key) },
    );
  };
  const refuseNonZero: readonly (readonly [key: string, feature: string])[] = [
    ["expert_count", "a mixture of experts"],
    ["attn_logit_softcapping", "attention soft-capping"],
    ["final_logit_softcapping", "logit soft-capping"],
    ["attention.clamp_kqv", "clamped q, k and v"],
    ["attention.max_alibi_bias", "ALiBi positions"],
    ["nextn_predict_layers", "multi-token prediction layers"],
    ["pooling_type", "pooling: it is an embedding model"],
    ["rope.scaling.alpha", "RoPE alpha scaling"],
  ];
  for (const [key, feature] of refuseNonZero) {
    if (metadata.number(key, 0) !== 0) refuse(key, feature);
  }
  const refuseNotOne: readonly (readonly [key: string, feature: string])[] = [
    ["logit_scale", "scaled logits"],
    ["residual_scale", "scaled residuals"],
    ["embedding_scale", "scaled embeddings"],
  ];
  for (const [key, feature] of refuseNotOne) {
    const scale = metadata.number(key, 1);
    if (scale !== 1 && scale !== 0) refuse(key, feature); // 0 stands for "not used"
  }
  // A window as long as the context hides nothing.
  const window = metadata.number("attention.sliding_window", 0);
  if (window !== 0 && window < contextLength) {
    refuse("attention.sliding_window", "a sliding attention window");
  }
  const usualScale = 1 / Math.sqrt(headDim);
  const scale = metadata.number("attention.scale", usualScale);
  if (scale !== 0 && Math.abs(scale / usualScale - 1) > 1e-6) {
    refuse("attention.scale", "an attention scale of its own");
  }
  if (!metadata.boolean("attention.causal", true))
    refuse("attention.causal", "non-causal attention");
  if (metadata.boolean("use_parallel_residual", false)) {
    refuse("use_parallel_residual", "parallel residuals");
  }
  if (metadata.has("rope.dimension_sections")) refuse("rope.dimension_sections", "sectioned RoPE");
}

function readRope(
  gguf: GgufFile,
  metadata: ModelMetadata,
  config: Pick<ModelConfig, "architecture" | "headDim" | "contextLength">,
  factors: Float32Array | undefined,
): RopeSpec {
  const { architecture, headDim, contextLength } = config;
  const rotaryDims = metadata.count("rope.dimension_count", headDim, headDim);
  if (rotaryDims % 2 !== 0) {
    throw metadata.invalid("rope.dimension_count", "an even number", rotaryDims);
  }
  const found = factors?.length ?? gguf.tensors.get("rope_freqs.weight")?.columns;
  if (found !== undefined && found !== rotaryDims / 2) {
    throw new QuireError(
      "model-invalid",
      `The model's tensor "rope_freqs.weight" has ${found} values; ${rotaryDims / 2} were expected.`,
      { tensor: "rope_freqs.weight", found, expected: rotaryDims / 2 },
    );
  }
  for (const factor of factors ?? []) {
    if (!(factor > 0 && Number.isFinite(factor))) {
      throw new QuireError(
        "model-invalid",
        `The model's tensor "rope_freqs.weight" holds ${factor}; numbers above 0 were expected.`,
        { tensor: "rope_freqs.weight" },
      );
    }
  }
  return makeRopeSpec({
    pairing: architecture === "llama" ? "adjacent" : "neox",
    rotaryDims,
    freqBase: metadata.positive("rope.freq_base", 10_000),
    scaling: readRopeScaling(metadata, contextLength),
    attentionFactor: metadata.positive("rope.scaling.attn_factor", 1),
    factors,
  });
}
