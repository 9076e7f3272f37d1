/** @file What the sampler and its kernels agree on: parameters and records in memory. */
import { paramOffsets } from "./abi.ts";

/**
 * Tokens of a chunk: the piece of a vocabulary that one item covers. Fixed, so that sums over the
 * vocabulary do not depend on how many threads there are.
 */
export const CHUNK_TOKENS = 2048;

/** A chunk's best token, by the score that decides. */
export const bestWords = { SCORE: 0, TOKEN: 1, BYTES: 8 } as const;

/**
 * A chunk of raw logits: its best token that is not yet taken, the sum of exp(x - FIRST_BEST), and how
 * many tokens come before the one that is judged.
 */
export const sumWords = { BEST: 0, TOKEN: 1, SUM: 2, FIRST_BEST: 3, BEFORE: 4, BYTES: 20 } as const;

/** Whose log-probabilities are wanted: NUM_TOP = -1 for none. TOKEN = the judged one, -1 for samples. */
export const reportWords = { NUM_TOP: 0, TOKEN: 1, BYTES: 8 } as const;

/** In TOKEN where a chunk has no token left; above every id when read unsigned. */
export const NO_TOKEN = 0xffffffff;

/**
 * One record for all sampling kernels. Places are the step's samples, then its scores.
 */
export const sampleParams = paramOffsets([
  "VOCABULARY",
  "CHUNKS", // of a sample: ceil(VOCABULARY / CHUNK_TOKENS)
  "SAMPLES", // sampleWords [places]
  "LOGITS", // f32 [sampleWords.LOGITS][LOGITS_STRIDE bytes]
  "LOGITS_STRIDE",
  "SLOT_RECORDS", // [slots][SLOT_WORDS]
  "TOKEN_STATE", // u32 [slots][TOKEN_STRIDE bytes]: IN_PROMPT | HAS_BIAS | output count
  "BIASES", // {u32 id, f32 bias} [slots][MAX_LOGIT_BIAS], ids ascending
  "SCALED", // f32 [samples][TOKEN_STRIDE bytes]; -Infinity behind the vocabulary's end
  "TOKEN_STRIDE",
  "BESTS", // bestWords [samples][CHUNKS]; first the largest scaled logit alone, then the best token
  "THRESHOLDS", // i32 [samples]: the order of the last token kept
  "REPORTS", // reportWords [places]
  "SUMS", // sumWords [places][CHUNKS]
  "TOPS", // u32 [places][MAX_LOGPROBS]: the best tokens of the raw logits
  "MASS_SCALE", // f32: the mass of the best token, a power of two
]);
