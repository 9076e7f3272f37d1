import { QuireError } from "../errors.ts";

/**
 * How each supported pre-tokenizer cuts text into words before merging: patterns applied one after
 * the other, each to the pieces that the one before left; what a pattern does not match stays a piece.
 */
interface PreTokenizer {
  readonly patterns: readonly string[];
  /** A word that is a token is taken as it is, whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** Whether the start token is added when the file does not say. */
  readonly addBos: boolean;
}

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Case is spelled out: with the flag, U+017F and U+212A would match s and k as well.
const CONTRACTION = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";

/** Words, then numbers of up to `digits` digits, then the rest with its line ends. */
const words = (digits: string) =>
  `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|` +
  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const plain = (...patterns: string[]): PreTokenizer => ({
  patterns,
  ignoreMerges: false,
  addBos: false,
});

const LLAMA_BPE: PreTokenizer = {
  patterns: [words("{1,3}")],
  ignoreMerges: true,
  addBos: true,
};
const QWEN2 = plain(words(""));

/** By the names that `tokenizer.ggml.pre` has in files. */
const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ["smollm", plain("\\p{N}", GPT2)],
  ["llama-bpe", LLAMA_BPE],
  ["llama3", LLAMA_BPE],
  ["llama-v3", LLAMA_BPE],
  ["qwen2", QWEN2],
  ["deepseek-r1-qwen", QWEN2],
  ["gpt-2", plain(GPT2)],
  ["default", plain("[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]")],
]);

/** Throws `model-unsupported` for a name that is not among the tested ones. */
export function findPreTokenizer(name: string): PreTokenizer {
  const found = PRE_TOKENIZERS.get(name);
  if (found !== undefined) return found;
  throw new QuireError(
    "model-unsupported",
    `The pre-tokenizer (tokenizer.ggml.pre) is "${name}". Quire runs ${[...PRE_TOKENIZERS.keys()].join(", ")}.`,
    { pre: name },
  );
}

// Code points that Unicode gained after 15.1, the version that llama.cpp's tables have. A browser
// knows some of them as letters or digits, another does not; models saw none of them classified.
// Ranges may run over what is still unassigned.
const NEWER_THAN_UNICODE_15_1 =
  "\\u{88F}\\u{897}\\u{C5C}\\u{CDC}\\u{1ACF}-\\u{1AEB}\\u{1B4E}-\\u{1B4F}\\u{1B7F}\\u{1C89}-\\u{1C8A}" +
  "\\u{20C1}\\u{2427}-\\u{2429}\\u{2B96}\\u{31E4}-\\u{31E5}\\u{A7CB}-\\u{A7CF}\\u{A7D2}\\u{A7D4}" +
  "\\u{A7DA}-\\u{A7DC}\\u{A7F1}\\u{FBC3}-\\u{FBD2}\\u{FD90}-\\u{FD91}\\u{FDC8}-\\u{FDCE}" +
  "\\u{105C0}-\\u{105F3}\\u{10940}-\\u{10959}\\u{10D40}-\\u{10D8F}\\u{10EC2}-\\u{10EC7}" +
  "\\u{10ED0}-\\u{10ED8}\\u{10EFA}-\\u{10EFC}\\u{11380}-\\u{113E2}\\u{116D0}-\\u{116E3}" +
  "\\u{11B60}-\\u{11B67}\\u{11BC0}-\\u{11BE1}\\u{11BF0}-\\u{11BF9}\\u{11DB0}-\\u{11DE9}\\u{11F5A}" +
  "\\u{13460}-\\u{143FA}\\u{16100}-\\u{16139}\\u{16D40}-\\u{16D79}\\u{16EA0}-\\u{16ED3}" +
  "\\u{16FF2}-\\u{16FF6}\\u{187F8}-\\u{187FF}\\u{18CFF}\\u{18D09}-\\u{18D1E}\\u{18D80}-\\u{18DF2}" +
  "\\u{1CC00}-\\u{1CEF0}\\u{1E5D0}-\\u{1E5FF}\\u{1E6C0}-\\u{1E6FF}\\u{1F6D8}\\u{1F777}-\\u{1F77A}" +
  "\\u{1F8B2}-\\u{1F8D8}\\u{1FA54}-\\u{1FA57}\\u{1FA89}-\\u{1FA8F}\\u{1FABE}\\u{1FAC6}-\\u{1FACD}" +
  "\\u{1FADC}-\\u{1FADF}\\u{1FAE9}-\\u{1FAEF}\\u{1FBCB}-\\u{1FBEF}\\u{1FBFA}\\u{2B73A}-\\u{2B73F}" +
  "\\u{2CEA2}-\\u{2CEAD}\\u{323B0}-\\u{33479}";

const newer = new RegExp(`[${NEWER_THAN_UNICODE_15_1}]`, "gu");

/**
 * Swaps characters newer than the tables for noncharacters of the same length in UTF-16, so that
 * words found in the result have the same places in the text.
 */
export function maskNewerCharacters(text: string): string {
  return text.replace(newer, (character) => (character.length === 1 ? "\uFFFE" : "\u{1FFFE}"));
}
