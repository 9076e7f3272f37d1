import { invariant, QuireError } from "../errors.ts";
import { createBpeEncoder } from "./bpe.ts";
import { lettersToBytes } from "./byteLevel.ts";
import { Detokenizer } from "./detokenizer.ts";
import { MarkedTokens } from "./markedTokens.ts";
import { findPreTokenizer } from "./preTokenizers.ts";
import { createSpmEncoder, parseByteToken, SPM_SPACE } from "./spm.ts";
import { TOKEN_TYPES } from "./tokenTypes.ts";
import { readVocabulary, type Vocabulary } from "./vocabulary.ts";

export interface EncodeOptions {
  /**
   * Whether the names of control tokens in the text (`<|im_end|>`) become those tokens. Default:
   * false, for text from users: no plain text ever yields a control token.
   */
  readonly specialTokens?: boolean;
  /**
   * Whether the text goes on after other text. Then it does not get the space that some vocabularies put
   * before a text's first word. Default: false.
   */
  readonly continuesText?: boolean;
}

/** Turns text into the tokens of a model and back. Adds no start token by itself: see `addBos`. */
export interface Tokenizer {
  /** Ids are 0 to this, exclusive. */
  readonly vocabularySize: number;
  /** Start of a text. */
  readonly bosToken: number | undefined;
  /** End of a text. */
  readonly eosToken: number | undefined;
  /** Whether a prompt has to begin with `bosToken`. Never true without one. */
  readonly addBos: boolean;
  /** Whether encoding puts a space before a text, which decoding has to take away. */
  readonly addSpacePrefix: boolean;
  /** Most UTF-16 units of a text that one token stands for. */
  readonly longestToken: number;
  /** Tokens at which a generation ends. */
  readonly endTokens: ReadonlySet<number>;
  /** Control tokens (and the unknown token) by their texts. */
  readonly controlTexts: ReadonlyMap<string, number>;
  /** Lone surrogates become U+FFFD. */
  encode(text: string, options?: EncodeOptions): number[];
  /** Text of tokens; control tokens have none. Bytes that are not UTF-8 become U+FFFD. */
  decode(ids: Iterable<number>): string;
  /** UTF-8 bytes, not always whole characters, that a token adds to a text. Not to be changed. */
  tokenBytes(id: number): Uint8Array;
  /** The token's name as the vocabulary writes it, for people. */
  tokenText(id: number): string;
  /** Whether a token has a meaning instead of a text. */
  isControl(id: number): boolean;
}

/**
 * Builds the tokenizer that a GGUF file's metadata describes.
 * Throws `model-unsupported` for kinds that Quire does not run, `model-invalid` for contradictions,
 * `gguf-limit` for texts that would cost too much.
 */
export function createTokenizer(metadata: ReadonlyMap<string, unknown>): Tokenizer {
  const vocabulary = readVocabulary(metadata);
  const { model, tokens, types } = vocabulary;
  const isSpm = model === "llama";
  const vocabularySize = tokens.length;

  const plainIds = new Map<string, number>();
  const controlTexts = new Map<string, number>();
  const userDefined = new Map<string, number>();
  for (const [id, text] of tokens.entries()) {
    if (isControlType(types[id]!)) controlTexts.set(text, id);
    else plainIds.set(text, id);
    if (types[id] === TOKEN_TYPES.userDefined) userDefined.set(text, id);
  }
  const plainMarks = new MarkedTokens(userDefined);
  const allMarks = new MarkedTokens(new Map([...userDefined, ...controlTexts]));

  const addSpacePrefix = isSpm && (vocabulary.addSpacePrefix ?? true);
  const addBos = vocabulary.addBos ?? (isSpm || findPreTokenizer(vocabulary.pre).addBos);
  const encodeText = isSpm
    ? createSpmEncoder(vocabulary, plainIds)
    : createBpeEncoder(vocabulary, plainIds);

  const bytes: (Uint8Array | undefined)[] = new Array(vocabularySize);

  const tokenizer: Tokenizer = {
    vocabularySize,
    bosToken: vocabulary.bosToken,
    eosToken: vocabulary.eosToken,
    addBos: addBos && vocabulary.bosToken !== undefined,
    addSpacePrefix,
    // A name in the vocabulary is never shorter than its text: it has a letter for each byte, or U+2581
    // for a space, or is the text, or says `<0x0A>` for a byte.
    longestToken: tokens.reduce((longest, { length }) => Math.max(longest, length), 0),
    endTokens: vocabulary.endTokens,
    controlTexts,
    encode(text, { specialTokens = false, continuesText = false } = {}) {
      const ids: number[] = [];
      const fragments = (specialTokens ? allMarks : plainMarks).split(replaceLone(text));
      for (const [i, fragment] of fragments.entries()) {
        if (typeof fragment === "number") {
          ids.push(fragment);
          continue;
        }
        const addsSpace = addSpacePrefix && !(continuesText && i === 0);
        for (const id of encodeText(addsSpace ? ` ${fragment}` : fragment)) ids.push(id);
      }
      return ids;
    },
    decode(ids) {
      const detokenizer = new Detokenizer(tokenizer);
      let text = "";
      for (const id of ids) text += detokenizer.push(id);
      return text + detokenizer.finish();
    },
    tokenBytes(id) {
      checkId(id, vocabularySize);
      return (bytes[id] ??= readBytes(vocabulary, id));
    },
    tokenText(id) {
      checkId(id, vocabularySize);
      return tokens[id]!;
    },
    isControl: (id) => isControlType(types[id] ?? 0),
  };
  return tokenizer;
}

const isControlType = (type: number) =>
  type === TOKEN_TYPES.control || type === TOKEN_TYPES.unknown;

const loneSurrogate = /\p{Surrogate}/gu;
const replaceLone = (text: string) => text.replace(loneSurrogate, "\uFFFD");

function checkId(id: number, vocabularySize: number): void {
  if (Number.isInteger(id) && id >= 0 && id < vocabularySize) return;
  throw new QuireError(
    "invalid-argument",
    `Token ${id} is not in the vocabulary. Tokens are 0 to ${vocabularySize - 1}.`,
    { token: id, vocabularySize },
  );
}

const encoder = new TextEncoder();

function readBytes({ model, tokens, types }: Vocabulary, id: number): Uint8Array {
  const text = tokens[id];
  invariant(text !== undefined, "A token was looked up outside the vocabulary.");
  switch (types[id]) {
    case TOKEN_TYPES.userDefined:
      return encoder.encode(text);
    case TOKEN_TYPES.normal:
      if (model === "gpt2") return lettersToBytes(text);
      return encoder.encode(text.replaceAll(SPM_SPACE, " "));
    case TOKEN_TYPES.byte: {
      const byte = parseByteToken(text);
      return byte === undefined ? encoder.encode(text) : Uint8Array.of(byte);
    }
    default: // control, unknown, unused: nothing to show
      return new Uint8Array(0);
  }
}
