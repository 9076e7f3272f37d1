import { QuireError } from "../errors.ts";
import { TOKEN_TYPES } from "./tokenTypes.ts";

/**
 * What a vocabulary may cost. Lengths count UTF-16 units. A header of 128 MiB could hold texts whose
 * handling takes hours, and no known vocabulary comes near any of these.
 */
export const VOCABULARY_LIMITS = {
  /** Of one token. Known ones have a few hundred at most. */
  tokenLength: 4096,
  /**
   * Of all control and user-defined tokens, for which texts are searched. A model of speech with
   * 65,536 tokens for sounds has 700,000.
   */
  markedLength: 2 ** 20,
  /**
   * Sum of the squared lengths of SentencePiece tokens: each is cut at every place into two texts,
   * which are looked up, and kept as a merge if both are there. 262,144 tokens of 8 come to 2^24.
   */
  squaredLengths: 2 ** 26,
} as const;

const MARKED_TYPES: ReadonlySet<number> = new Set([
  TOKEN_TYPES.control,
  TOKEN_TYPES.unknown,
  TOKEN_TYPES.userDefined,
]);

/** Throws `gguf-limit`. */
export function checkVocabularyLimits(
  model: "gpt2" | "llama",
  tokens: readonly string[],
  types: ArrayLike<number>,
): void {
  let markedLength = 0;
  let squaredLengths = 0;
  for (const [id, { length }] of tokens.entries()) {
    check("tokenLength", length, `Token ${id} is too long`);
    if (MARKED_TYPES.has(types[id]!)) markedLength += length;
    squaredLengths += length * length;
  }
  check("markedLength", markedLength, "The control and user-defined tokens are too long together");
  if (model === "llama") {
    check("squaredLengths", squaredLengths, "The tokens are too long together");
  }
}

function check(limit: keyof typeof VOCABULARY_LIMITS, found: number, what: string): void {
  const maximum = VOCABULARY_LIMITS[limit];
  if (found <= maximum) return;
  throw new QuireError(
    "gguf-limit",
    `${what} in tokenizer.ggml.tokens: ${found} is over the limit ${limit} = ${maximum}. The model file is damaged or made to do harm: get it from another place.`,
    { limit, maximum, found },
  );
}
