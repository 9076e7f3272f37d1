import { QuireError } from "../errors.ts";
import { findEndTokens } from "./endTokens.ts";
import { overrideTypes, TOKEN_TYPES } from "./tokenTypes.ts";
import { checkVocabularyLimits } from "./vocabularyLimits.ts";

/** A vocabulary as the file states it, checked for contradictions. */
export interface Vocabulary {
  /** `gpt2` = byte-level BPE, `llama` = SentencePiece BPE with byte fallback. */
  readonly model: "gpt2" | "llama";
  /** Name of the pre-tokenizer as in the file, `default` when it has none. Means nothing for `llama`. */
  readonly pre: string;
  /** Text of each token in the notation of its model. */
  readonly tokens: readonly string[];
  /** One of `TOKEN_TYPES` for each token: the file's, but for start and end tokens. */
  readonly types: ArrayLike<number>;
  /** `left right` pairs, best first. Empty for `llama`. */
  readonly merges: readonly string[];
  /** Higher merges first; one for each token. Empty for `gpt2`. */
  readonly scores: ArrayLike<number>;
  readonly bosToken: number | undefined;
  readonly eosToken: number | undefined;
  /** Tokens at which a generation ends, `eosToken` among them. */
  readonly endTokens: ReadonlySet<number>;
  readonly unknownToken: number | undefined;
  /** Undefined when the file does not say. */
  readonly addBos: boolean | undefined;
  readonly addSpacePrefix: boolean | undefined;
}

const MODELS = ["gpt2", "llama"] as const;
const PREFIX = "tokenizer.ggml.";

/**
 * Reads the tokenizer's part of a GGUF file's metadata.
 * Throws `model-unsupported` for another tokenizer model, `model-invalid` for contradictions and
 * `gguf-limit` for texts over VOCABULARY_LIMITS.
 */
export function readVocabulary(metadata: ReadonlyMap<string, unknown>): Vocabulary {
  const model = readString(metadata, "model");
  if (model === undefined) {
    throw invalid("The file has no tokenizer: the metadata key tokenizer.ggml.model is missing.");
  }
  if (model !== "gpt2" && model !== "llama") {
    throw new QuireError(
      "model-unsupported",
      `The tokenizer model is "${model}". Quire runs ${MODELS.join(" and ")}.`,
      { model },
    );
  }
  const tokens = readStrings(metadata, "tokens");
  if (tokens === undefined || tokens.length === 0) {
    throw invalid("The metadata key tokenizer.ggml.tokens is missing or empty.");
  }
  const tokenId = (key: string) => readTokenId(metadata, key, tokens.length);
  const bosToken = tokenId("bos_token_id");
  const eosToken = tokenId("eos_token_id");
  const endTokens = findEndTokens(tokens, [
    eosToken,
    tokenId("eot_token_id"),
    tokenId("eom_token_id"),
  ]);
  const merges = model === "gpt2" ? readMerges(metadata) : [];
  const fileTypes = readTypes(metadata, tokens.length);
  const startsAndEnds = bosToken === undefined ? endTokens : [...endTokens, bosToken];
  const types = overrideTypes(fileTypes, startsAndEnds, { model, tokens, merges });
  checkVocabularyLimits(model, tokens, types);
  return {
    model,
    pre: readString(metadata, "pre") ?? "default",
    tokens,
    types,
    merges,
    scores: model === "llama" ? readScores(metadata, tokens.length) : [],
    bosToken,
    eosToken,
    endTokens,
    unknownToken: tokenId("unknown_token_id"),
    addBos: readBoolean(metadata, "add_bos_token"),
    addSpacePrefix: readBoolean(metadata, "add_space_prefix"),
  };
}

function invalid(message: string, data: Record<string, string | number> = {}): QuireError {
  return new QuireError(
    "model-invalid",
    `${message} The model file is damaged or incomplete.`,
    data,
  );
}

function readTypes(metadata: ReadonlyMap<string, unknown>, count: number): ArrayLike<number> {
  const types = readNumbers(metadata, "token_type");
  if (types === undefined) return new Uint8Array(count).fill(TOKEN_TYPES.normal);
  if (types.length !== count) {
    throw invalid(
      `tokenizer.ggml.token_type has ${types.length} entries for ${count} tokens; they must be as many.`,
      { found: types.length, expected: count },
    );
  }
  for (let id = 0; id < count; id++) {
    const type = types[id]!;
    // 0 is "undefined" in the format; some converters write it for padding.
    if (!Number.isInteger(type) || type < 0 || type > TOKEN_TYPES.byte) {
      throw invalid(`tokenizer.ggml.token_type says ${type} for token ${id}; types are 0 to 6.`, {
        token: id,
      });
    }
  }
  return types;
}

function readMerges(metadata: ReadonlyMap<string, unknown>): readonly string[] {
  const merges = readStrings(metadata, "merges");
  if (merges === undefined) {
    throw invalid(`tokenizer.ggml.merges is missing, and a tokenizer of model "gpt2" needs it.`);
  }
  return merges;
}

function readScores(metadata: ReadonlyMap<string, unknown>, count: number): ArrayLike<number> {
  const scores = readNumbers(metadata, "scores");
  if (scores === undefined) {
    throw invalid(`tokenizer.ggml.scores is missing, and a tokenizer of model "llama" needs it.`);
  }
  if (scores.length !== count) {
    throw invalid(
      `tokenizer.ggml.scores has ${scores.length} entries for ${count} tokens; they must be as many.`,
      { found: scores.length, expected: count },
    );
  }
  for (let id = 0; id < count; id++) {
    if (Number.isNaN(scores[id]!))
      throw invalid(`The score of token ${id} is not a number.`, { token: id });
  }
  return scores;
}

function readTokenId(
  metadata: ReadonlyMap<string, unknown>,
  key: string,
  count: number,
): number | undefined {
  const value = metadata.get(PREFIX + key);
  if (value === undefined) return undefined;
  const id = typeof value === "bigint" ? Number(value) : value;
  // Converters write the largest uint32 (or -1) for "none".
  if (id === 0xffffffff || id === -1) return undefined;
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= count) {
    throw invalid(`${PREFIX}${key} is ${String(value)}; the vocabulary has ${count} tokens.`, {
      key: PREFIX + key,
      tokens: count,
    });
  }
  return id;
}

function readString(metadata: ReadonlyMap<string, unknown>, key: string): string | undefined {
  const value = metadata.get(PREFIX + key);
  if (value === undefined || typeof value === "string") return value;
  throw invalid(`${PREFIX}${key} must be a string.`, { key: PREFIX + key });
}

function readBoolean(metadata: ReadonlyMap<string, unknown>, key: string): boolean | undefined {
  const value = metadata.get(PREFIX + key);
  if (value === undefined || typeof value === "boolean") return value;
  throw invalid(`${PREFIX}${key} must be a boolean.`, { key: PREFIX + key });
}

function readStrings(
  metadata: ReadonlyMap<string, unknown>,
  key: string,
): readonly string[] | undefined {
  const value = metadata.get(PREFIX + key);
  if (value === undefined) return undefined;
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw invalid(`${PREFIX}${key} must be an array of strings.`, { key: PREFIX + key });
}

function readNumbers(
  metadata: ReadonlyMap<string, unknown>,
  key: string,
): ArrayLike<number> | undefined {
  const value = metadata.get(PREFIX + key);
  if (value === undefined) return undefined;
  const isNumbers =
    (Array.isArray(value) && value.every((item) => typeof item === "number")) ||
    (ArrayBuffer.isView(value) &&
      !(value instanceof DataView) &&
      !(value instanceof BigInt64Array) &&
      !(value instanceof BigUint64Array));
  if (isNumbers) return value as unknown as ArrayLike<number>;
  throw invalid(`${PREFIX}${key} must be an array of numbers.`, { key: PREFIX + key });
}
