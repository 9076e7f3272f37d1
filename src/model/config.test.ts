import { describe, expect, test } from "vitest";
import { makeTinyModel, type TinyModelOptions } from "../../e2e/fixtures/tinyModel.ts";
import { createBufferSource } from "../weights/bufferSource.ts";
import { type GgufFile, parseGguf } from "../weights/gguf.ts";
import type { GgufValue } from "../weights/ggufValue.ts";
import type { TensorInfo } from "../weights/tensorType.ts";
import { readModelConfig } from "./config.ts";
import { openModel } from "./model.ts";
import { readModelTensors } from "./tensors.ts";

const parse = (options: TinyModelOptions = {}): Promise<GgufFile> =>
  parseGguf(createBufferSource(makeTinyModel(options), "tiny"));

/** The header with metadata or tensors replaced; undefined removes. */
function change(
  gguf: GgufFile,
  {
    metadata = {},
    tensors = {},
  }: {
    readonly metadata?: Readonly<Record<string, GgufValue | undefined>>;
    readonly tensors?: Readonly<Record<string, Partial<TensorInfo> | undefined>>;
  },
): GgufFile {
  const newMetadata = new Map(gguf.metadata);
  for (const [key, value] of Object.entries(metadata)) {
    if (value === undefined) newMetadata.delete(key);
    else newMetadata.set(key, value);
  }
  const newTensors = new Map(gguf.tensors);
  for (const [name, value] of Object.entries(tensors)) {
    const old = newTensors.get(name) ?? newTensors.get("blk.0.attn_norm.weight")!;
    if (value === undefined) newTensors.delete(name);
    else newTensors.set(name, { ...old, name, ...value });
  }
  return { ...gguf, metadata: newMetadata, tensors: newTensors };
}

const read = (gguf: GgufFile) => readModelTensors(gguf, readModelConfig(gguf));

describe("readModelConfig", () => {
  test("reads each architecture's numbers", async () => {
    const llama = readModelConfig(await parse({ type: "Q8_0", heads: 6, kvHeads: 2, headDim: 80 }));
    expect(llama).toMatchObject({
      architecture: "llama",
      numLayers: 2,
      width: 64,
      numHeads: 6,
      numKvHeads: 2,
      headDim: 80,
      ffnWidth: 96,
      contextLength: 512,
      vocabularySize: 300,
      tiedOutput: true,
      hasHeadNorms: false,
      rope: { pairing: "adjacent", magnitude: 1 },
    });
    expect(llama.rmsEpsilon).toBeCloseTo(1e-5, 10);
    expect(llama.rope.frequencies).toHaveLength(40);
    const qwen2 = readModelConfig(await parse({ architecture: "qwen2", tied: false }));
    expect(qwen2).toMatchObject({ width: 256, tiedOutput: false, rope: { pairing: "neox" } });
    const qwen3 = readModelConfig(await parse({ architecture: "qwen3" }));
    expect(qwen3).toMatchObject({ hasHeadNorms: true, rope: { pairing: "neox" } });
  });

  test("heads, their size and the context may follow from other keys, lists may be even", async () => {
    const gguf = change(await parse({ width: 64, heads: 4, kvHeads: 4, headDim: 16 }), {
      metadata: {
        "llama.attention.key_length": undefined,
        "llama.attention.value_length": undefined,
        "llama.attention.head_count_kv": undefined,
        "llama.rope.dimension_count": undefined,
        "llama.feed_forward_length": Int32Array.of(96, 96),
      },
    });
    expect(readModelConfig(gguf)).toMatchObject({ numKvHeads: 4, headDim: 16, ffnWidth: 96 });
    read(gguf);
  });

  test("openModel reads rope_freqs.weight", async () => {
    const plain = await openModel(createBufferSource(makeTinyModel({ rope: "none" })));
    const { config } = await openModel(createBufferSource(makeTinyModel({ rope: "factors" })));
    expect(config.rope.frequencies[0]).toBe(1);
    const last = 31;
    const factor = Math.fround(1 + (7 * last * 2) / 64);
    expect(config.rope.frequencies[last]).toBe(plain.config.rope.frequencies[last]! / factor);
  });

  test.each([
    ["gpt2", "model-unsupported", "llama, qwen2, qwen3"],
    [undefined, "model-invalid", "general.architecture"],
  ])("refuses the architecture %s", async (architecture, code, text) => {
    const gguf = change(await parse(), { metadata: { "general.architecture": architecture } });
    expect(() => readModelConfig(gguf)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(text) }),
    );
  });

  test.each<[key: string, value: GgufValue, code: string]>([
    ["expert_count", 8, "model-unsupported"],
    ["attention.sliding_window", 128, "model-unsupported"],
    ["attn_logit_softcapping", 50, "model-unsupported"],
    ["final_logit_softcapping", 30, "model-unsupported"],
    ["logit_scale", 0.0625, "model-unsupported"],
    ["attention.scale", 0.5, "model-unsupported"],
    ["attention.causal", false, "model-unsupported"],
    ["rope.scaling.type", "longrope", "model-unsupported"],
    ["attention.value_length", 32, "model-unsupported"],
    ["feed_forward_length", Int32Array.of(96, 64), "model-unsupported"],
    ["attention.head_count_kv", 3, "model-invalid"],
    ["attention.head_count", 0, "model-invalid"],
    ["block_count", 2.5, "model-invalid"],
    ["block_count", 2 ** 31, "model-invalid"],
    ["embedding_length", "64", "model-invalid"],
    ["embedding_length", 2n ** 63n, "model-invalid"],
    ["context_length", -1, "model-invalid"],
    ["attention.layer_norm_rms_epsilon", Number.NaN, "model-invalid"],
    ["attention.layer_norm_rms_epsilon", 0, "model-invalid"],
    ["rope.dimension_count", 7, "model-invalid"],
    ["rope.dimension_count", 66, "model-invalid"],
    ["rope.scaling.factor", -2, "model-invalid"],
    ["rope.freq_base", 0, "model-invalid"],
  ])("%s = %s: %s", async (key, value, code) => {
    const gguf = change(await parse(), { metadata: { [`llama.${key}`]: value } });
    expect(() => readModelConfig(gguf)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(/llama\.|RoPE|values/) }),
    );
  });

  test.each(["block_count", "embedding_length", "attention.head_count", "context_length"])(
    "a missing %s is model-invalid",
    async (key) => {
      const gguf = change(await parse(), { metadata: { [`llama.${key}`]: undefined } });
      expect(() => readModelConfig(gguf)).toThrow(
        expect.objectContaining({ code: "model-invalid", message: expect.stringContaining(key) }),
      );
    },
  );

  test("features that are off are no feature", async () => {
    const metadata = {
      "llama.expert_count": 0,
      "llama.attention.sliding_window": 512, // as long as the context
      "llama.logit_scale": 1,
      "llama.attention.scale": 1 / 8,
    };
    read(change(await parse(), { metadata }));
  });

  test("a vocabulary of another size than the embedding is model-invalid", async () => {
    const gguf = change(await parse(), { metadata: { "tokenizer.ggml.tokens": ["a", "b"] } });
    expect(() => readModelConfig(gguf)).toThrow("300 rows");
  });
});

describe("readModelTensors", () => {
  const refused = async (
    options: TinyModelOptions,
    tensors: Record<string, Partial<TensorInfo> | undefined>,
    code: string,
    text: string | RegExp,
  ): Promise<void> => {
    const gguf = change(await parse(options), { tensors });
    expect(() => read(gguf)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(text) }),
    );
  };

  test("finds every tensor of each architecture", async () => {
    for (const architecture of ["llama", "qwen2", "qwen3"] as const) {
      const tensors = read(await parse({ architecture, tied: architecture === "llama" }));
      expect(tensors.layers).toHaveLength(2);
      expect(tensors.head === tensors.embedding).toBe(architecture === "llama");
      expect(tensors.layers[1]!.q.bias?.name).toBe(
        architecture === "qwen2" ? "blk.1.attn_q.bias" : undefined,
      );
      expect(tensors.layers[0]!.headNorms?.k.columns).toBe(
        architecture === "qwen3" ? 64 : undefined,
      );
    }
  });

  test("names a missing or misshapen tensor, what was expected and what was found", async () => {
    const name = "blk.1.ffn_down.weight";
    await refused(
      {},
      { [name]: undefined },
      "model-invalid",
      /blk\.1\.ffn_down\.weight.*\[64, 96\]/,
    );
    await refused({}, { [name]: { rows: 63 } }, "model-invalid", /\[63, 96\].*\[64, 96\]/);
    await refused({}, { "token_embd.weight": undefined }, "model-invalid", "token_embd");
    await refused({ tied: false }, { "output.weight": { columns: 32 } }, "model-invalid", "output");
    const qwen2 = { architecture: "qwen2" } as const;
    await refused(qwen2, { "blk.0.attn_k.bias": undefined }, "model-invalid", "attn_k.bias");
    const qwen3 = { architecture: "qwen3" } as const;
    await refused(qwen3, { "blk.0.attn_q_norm.weight": undefined }, "model-invalid", "attn_q_norm");
  });

  test("refuses tensors that it would leave out, and norms that are not F32", async () => {
    await refused({}, { "blk.0.attn_q_norm.weight": {} }, "model-unsupported", "attn_q_norm");
    await refused({}, { "blk.2.attn_norm.weight": {} }, "model-unsupported", "blk.2");
    await refused({}, { "output.bias": {} }, "model-unsupported", "output.bias");
    const f16 = { type: "F16" } as const;
    await refused({}, { "blk.0.ffn_norm.weight": f16 }, "model-unsupported", "F16");
  });

  test("takes optional biases of any linear layer", async () => {
    const gguf = change(await parse(), {
      tensors: { "blk.1.attn_output.bias": { rows: 1, columns: 64, type: "F32" } },
    });
    expect(read(gguf).layers[1]!.attentionOutput.bias?.columns).toBe(64);
  });
});
