import { isEndText } from "./endTokens.ts";

/** `tokenizer.ggml.token_type` of a GGUF file. */
export const TOKEN_TYPES = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const;

interface Texts {
  readonly model: "gpt2" | "llama";
  readonly tokens: readonly string[];
  /** `left right` pairs; none for `llama`. */
  readonly merges: readonly string[];
}

/**
 * The file's types, but with start and end tokens as control tokens. Of another type, their names in
 * a user's text could become the tokens themselves, and in a template letters.
 */
export function overrideTypes(
  types: ArrayLike<number>,
  startsAndEnds: Iterable<number>,
  texts: Texts,
): ArrayLike<number> {
  const overridden = Uint8Array.from(types);
  for (const id of startsAndEnds) {
    const isByte = types[id] === TOKEN_TYPES.byte;
    if (isEndText(texts.tokens[id]!) || !(isByte || isMadeOfText(texts, id))) {
      overridden[id] = TOKEN_TYPES.control;
    }
  }
  return overridden;
}

/**
 * Whether merging letters gives the token. Files do name such ones, a comma or a line end say, and
 * texts would lose them. SentencePiece loses none: it has byte tokens for whatever has no token.
 */
function isMadeOfText({ model, tokens, merges }: Texts, id: number): boolean {
  if (model !== "gpt2") return false;
  const text = tokens[id]!;
  // In the notation of BPE a byte is one letter.
  return text.length === 1 || merges.some((pair) => pair.replace(" ", "") === text);
}
