import type { SamplingParams } from "../engine/sampling.ts";
import { MAX_LOGIT_BIAS, MAX_LOGPROBS, usesPenalties } from "../engine/sampling.ts";
import type { SlotReset } from "../engine/step.ts";
import { QuireError } from "../errors.ts";

// What the sampling kernels of all back ends know of a slot, as words. The shaders get every constant
// below as a `const` of the same name, so the layout is written down only here.

/** Words of a slot's record. */
export const slotWords = {
  SLOT_FLAGS: 0, // the flags below
  SLOT_INVERSE_TEMPERATURE: 1, // f32; 1 when greedy
  SLOT_REPETITION: 2, // f32
  SLOT_INVERSE_REPETITION: 3, // f32
  SLOT_PRESENCE: 4, // f32
  SLOT_FREQUENCY: 5, // f32
  SLOT_LOG_MIN_P: 6, // f32, ln(minP)
  SLOT_TOP_K: 7, // u32
  SLOT_TOP_P: 8, // u32, topP * 2^32
  SLOT_SEED_LOW: 9, // u32
  SLOT_SEED_HIGH: 10, // u32
  SLOT_NUM_BIASES: 11, // u32
  SLOT_NUM_TOP: 12, // u32, number of best tokens whose log-probabilities are wanted
  SLOT_WORDS: 16, // length of a record
} as const;

export const slotFlags = {
  NOISE_FLAG: 1, // temperature > 0: Gumbel noise decides
  ADJUST_FLAG: 2, // more than a temperature: `adjust` must run
  TOKEN_STATE_FLAG: 4, // bias or penalties: the slot's row of token state holds something
  COUNT_FLAG: 8, // penalties: sampled tokens are counted
  SELECT_FLAG: 16, // any of the three below
  MIN_P_FLAG: 32,
  TOP_K_FLAG: 64,
  TOP_P_FLAG: 128,
  LOGPROBS_FLAG: 256,
} as const;

/** Bits of a word of token state; the rest counts the token in the slot's output. */
export const tokenStateBits = {
  IN_PROMPT: 0x80000000,
  HAS_BIAS: 0x40000000,
  COUNT_MASK: 0x3fffffff,
} as const;

/** A slot's sampling state, ready to upload. */
export interface SlotState {
  readonly flags: number;
  /** Best tokens to report; 0 where none or no log-probabilities are wanted. */
  readonly numTop: number;
  /** [SLOT_WORDS] */
  readonly record: Uint32Array<ArrayBuffer>;
  /** [numBiases]{id, f32 bias}, ids ascending. */
  readonly biases: Uint32Array<ArrayBuffer>;
  /** [vocabularySize], or undefined if the slot needs none. */
  readonly tokenState: Uint32Array<ArrayBuffer> | undefined;
}

// Keeps the inverse finite in f32. Any gap between logits divided by it outweighs the noise.
const MIN_TEMPERATURE = 1e-30;
const MIN_REPETITION_PENALTY = 1e-20;

/**
 * The state of a slot that `reset` starts. Parameters that cannot change the outcome are left out
 * (top-k of a greedy sequence, top-k over the whole vocabulary), so that no kernel runs for them.
 * Throws `invalid-argument` for too many biases or one on a token outside the vocabulary.
 */
export function createSlotState(reset: SlotReset, vocabularySize: number): SlotState {
  const params = reset.sampling;
  const biases = mergeBiases(params.logitBias, vocabularySize);
  const flags = flagsOf(params, biases.size > 0, vocabularySize);
  const numTop = Math.min(params.logprobs ?? 0, MAX_LOGPROBS, vocabularySize);
  return {
    flags,
    numTop,
    record: packRecord(params, flags, biases.size, numTop),
    biases: packBiases(biases),
    tokenState:
      (flags & slotFlags.TOKEN_STATE_FLAG) !== 0
        ? countTokens(reset, biases, vocabularySize)
        : undefined,
  };
}

function flagsOf(params: SamplingParams, hasBias: boolean, vocabularySize: number): number {
  const isGreedy = params.temperature === 0;
  const hasPenalties = usesPenalties(params);
  let flags = 0;
  if (!isGreedy) {
    flags |= slotFlags.NOISE_FLAG;
    if (params.minP > 0) flags |= slotFlags.MIN_P_FLAG;
    if (params.topK > 0 && params.topK < vocabularySize) flags |= slotFlags.TOP_K_FLAG;
    if (params.topP < 1) flags |= slotFlags.TOP_P_FLAG;
    if (flags !== slotFlags.NOISE_FLAG) flags |= slotFlags.SELECT_FLAG | slotFlags.ADJUST_FLAG;
  }
  if (hasPenalties) flags |= slotFlags.COUNT_FLAG;
  if (hasPenalties || hasBias) flags |= slotFlags.TOKEN_STATE_FLAG | slotFlags.ADJUST_FLAG;
  if (params.logprobs !== undefined) flags |= slotFlags.LOGPROBS_FLAG;
  return flags;
}

function packRecord(
  params: SamplingParams,
  flags: number,
  numBiases: number,
  numTop: number,
): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(slotWords.SLOT_WORDS);
  const floats = new Float32Array(words.buffer);
  const repetition = Math.max(params.repetitionPenalty, MIN_REPETITION_PENALTY);
  words[slotWords.SLOT_FLAGS] = flags;
  floats[slotWords.SLOT_INVERSE_TEMPERATURE] =
    params.temperature === 0 ? 1 : 1 / Math.max(params.temperature, MIN_TEMPERATURE);
  floats[slotWords.SLOT_REPETITION] = repetition;
  floats[slotWords.SLOT_INVERSE_REPETITION] = 1 / repetition;
  floats[slotWords.SLOT_PRESENCE] = params.presencePenalty;
  floats[slotWords.SLOT_FREQUENCY] = params.frequencyPenalty;
  floats[slotWords.SLOT_LOG_MIN_P] = params.minP > 0 ? Math.log(params.minP) : 0;
  words[slotWords.SLOT_TOP_K] = params.topK;
  words[slotWords.SLOT_TOP_P] = Math.max(
    0,
    Math.min(Math.round(params.topP * 2 ** 32), 2 ** 32 - 1),
  );
  words[slotWords.SLOT_SEED_LOW] = params.seed[0];
  words[slotWords.SLOT_SEED_HIGH] = params.seed[1];
  words[slotWords.SLOT_NUM_BIASES] = numBiases;
  words[slotWords.SLOT_NUM_TOP] = numTop;
  return words;
}

/** One bias a token, ids ascending; several biases on one token add up. */
function mergeBiases(
  pairs: SamplingParams["logitBias"],
  vocabularySize: number,
): ReadonlyMap<number, number> {
  if (pairs.length > MAX_LOGIT_BIAS) {
    throw new QuireError(
      "invalid-argument",
      `logitBias has ${pairs.length} pairs; at most ${MAX_LOGIT_BIAS} are possible.`,
      { numPairs: pairs.length, max: MAX_LOGIT_BIAS },
    );
  }
  const sums = new Map<number, number>();
  for (const [token, bias] of [...pairs].sort((a, b) => a[0] - b[0])) {
    if (!Number.isInteger(token) || token < 0 || token >= vocabularySize) {
      throw new QuireError(
        "invalid-argument",
        `logitBias names token ${token}; the vocabulary has ids 0 to ${vocabularySize - 1}.`,
        { token, vocabularySize },
      );
    }
    sums.set(token, (sums.get(token) ?? 0) + bias);
  }
  return sums;
}

function packBiases(biases: ReadonlyMap<number, number>): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(biases.size * 2);
  const floats = new Float32Array(words.buffer);
  let at = 0;
  for (const [token, bias] of biases) {
    words[at] = token;
    floats[at + 1] = bias;
    at += 2;
  }
  return words;
}

function countTokens(
  reset: SlotReset,
  biases: ReadonlyMap<number, number>,
  vocabularySize: number,
): Uint32Array<ArrayBuffer> {
  const state = new Uint32Array(vocabularySize);
  if (usesPenalties(reset.sampling)) {
    for (const token of reset.outputTokens) {
      if (token < vocabularySize) state[token]!++;
    }
    for (const token of reset.promptTokens) {
      if (token < vocabularySize) state[token]! |= tokenStateBits.IN_PROMPT;
    }
  }
  for (const token of biases.keys()) state[token]! |= tokenStateBits.HAS_BIAS;
  return state;
}
