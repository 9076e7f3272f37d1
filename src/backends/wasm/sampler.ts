import { MAX_LOGIT_BIAS, MAX_LOGPROBS } from "../../engine/sampling.ts";
import {
  NO_TOKEN,
  type SlotReset,
  type StepResult,
  type StepSample,
  type StepScore,
  type TokenScore,
} from "../../engine/step.ts";
import { invariant, QuireError } from "../../errors.ts";
import { createSlotState, slotFlags, slotWords } from "../slotRecord.ts";
import { sampleWords } from "./abi.ts";
import type { Arena } from "./arena.ts";
import { floatBits, type Program } from "./program.ts";
import { bestWords, CHUNK_TOKENS, reportWords, sampleParams, sumWords } from "./samplerAbi.ts";

export interface SamplerOptions {
  readonly maxSequences: number;
  readonly vocabularySize: number;
  /** Address of f32 [sampleWords.LOGITS][logitsStride bytes]: the raw logits of the step's samples and scores. */
  readonly logits: number;
  /** Bytes, a multiple of 16. What lies behind a row's last token is not looked at. */
  readonly logitsStride: number;
  /** Address of [places] sampleWords: the step's samples, then its scores. */
  readonly samples: number;
}

/** The kernels' ids have 20 bits, and so many equal best tokens still sum in 64 bits. */
const MAX_VOCABULARY = 2 ** 20;
/** The best token's mass, as on the GPU; half of it where the sum could overflow. */
const MASS_BITS = 44;
const MAX_FULL_MASS_VOCABULARY = 2 ** 19;

/** What a kernel runs over: every chunk of what it serves, or once for each. */
type Items = "samples" | "sampleChunks" | "reports" | "reportChunks";

/** The kernels, in their order; a flag where some sample must have it for the kernel to run. */
const STAGES: readonly { kernel: string; items: Items; flag?: number }[] = [
  { kernel: "sampleAdjust", items: "sampleChunks", flag: slotFlags.ADJUST_FLAG },
  { kernel: "sampleSelect", items: "samples", flag: slotFlags.SELECT_FLAG },
  { kernel: "sampleChoose", items: "sampleChunks" },
  { kernel: "sampleSums", items: "reportChunks" },
  { kernel: "sampleTops", items: "reports" },
];

/**
 * Samples and scores tokens as the WebGPU back end does. For each step, in this order: `resetSlots`, `prepare`
 * before the program is sized, and `readResults` when it has run.
 */
export class Sampler {
  readonly #options: SamplerOptions;
  readonly #numChunks: number;
  readonly #tokenStride: number;
  readonly #slotRecords: number;
  readonly #tokenState: number;
  readonly #biases: number;
  readonly #bests: number;
  readonly #reports: number;
  readonly #sums: number;
  readonly #tops: number;
  /** By slot, in TypeScript: what the slot's record says of its parameters. */
  readonly #slots: { flags: number; numTop: number }[];
  /** Of the step that is prepared: flags that some sample has, and the kernels' items. */
  #stepFlags = 0;
  #numItems: Record<Items, number> = { samples: 0, sampleChunks: 0, reports: 0, reportChunks: 0 };
  #words = new Uint32Array();
  #floats = new Float32Array();

  /** Reserves memory and adds the commands. Throws `unsupported` for a vocabulary over 2^20. */
  constructor(arena: Arena, program: Program, options: SamplerOptions) {
    const { maxSequences, vocabularySize, logits, logitsStride, samples } = options;
    if (vocabularySize > MAX_VOCABULARY) {
      throw new QuireError(
        "unsupported",
        `The vocabulary has ${vocabularySize} tokens; sampling takes at most ${MAX_VOCABULARY}.`,
        { vocabularySize, max: MAX_VOCABULARY },
      );
    }
    invariant(
      logitsStride % 16 === 0 && logitsStride >= 4 * vocabularySize,
      `A row of ${vocabularySize} logits has ${logitsStride} bytes: whole vectors are needed.`,
    );
    this.#options = options;
    this.#slots = Array.from({ length: maxSequences }, () => ({ flags: 0, numTop: 0 }));
    this.#numChunks = Math.ceil(vocabularySize / CHUNK_TOKENS);
    this.#tokenStride = 16 * Math.ceil(vocabularySize / 4);
    const reserve = (bytesEach: number): number =>
      arena.reserve("scratch", maxSequences * bytesEach);
    this.#slotRecords = reserve(slotWords.SLOT_WORDS * 4);
    this.#tokenState = reserve(this.#tokenStride);
    this.#biases = reserve(MAX_LOGIT_BIAS * 8);
    this.#bests = reserve(this.#numChunks * bestWords.BYTES);
    this.#reports = reserve(reportWords.BYTES);
    this.#sums = reserve(this.#numChunks * sumWords.BYTES);
    this.#tops = reserve(MAX_LOGPROBS * 4);
    const massBits = vocabularySize > MAX_FULL_MASS_VOCABULARY ? MASS_BITS - 1 : MASS_BITS;
    const params = program.params(sampleParams, {
      VOCABULARY: vocabularySize,
      CHUNKS: this.#numChunks,
      SAMPLES: samples,
      LOGITS: logits,
      LOGITS_STRIDE: logitsStride,
      SLOT_RECORDS: this.#slotRecords,
      TOKEN_STATE: this.#tokenState,
      BIASES: this.#biases,
      SCALED: reserve(this.#tokenStride),
      TOKEN_STRIDE: this.#tokenStride,
      BESTS: this.#bests,
      THRESHOLDS: reserve(4),
      REPORTS: this.#reports,
      SUMS: this.#sums,
      TOPS: this.#tops,
      MASS_SCALE: floatBits(2 ** massBits),
    });
    for (const { kernel, items, flag } of STAGES) {
      const hasWork = (): boolean => flag === undefined || (this.#stepFlags & flag) !== 0;
      program.add({ kernel, params, items: () => (hasWork() ? this.#numItems[items] : 0) });
    }
  }

  bind(memory: WebAssembly.Memory): void {
    this.#words = new Uint32Array(memory.buffer);
    this.#floats = new Float32Array(memory.buffer);
  }

  /** Writes the state of slots that a step resets. Throws `invalid-argument`. */
  resetSlots(resets: readonly SlotReset[]): void {
    const { vocabularySize, maxSequences } = this.#options;
    for (const reset of resets) {
      const { slot } = reset;
      invariant(slot >= 0 && slot < maxSequences, `Slot ${slot} of ${maxSequences} was reset.`);
      const { record, biases, tokenState, flags, numTop } = createSlotState(reset, vocabularySize);
      this.#words.set(record, this.#slotRecords / 4 + slot * slotWords.SLOT_WORDS);
      this.#words.set(biases, this.#biases / 4 + slot * MAX_LOGIT_BIAS * 2);
      if (tokenState !== undefined) this.#words.set(tokenState, this.#tokenStateOf(slot));
      this.#slots[slot] = { flags, numTop };
    }
  }

  /** Decides which kernels have work. A kernel touches only what asks for it. */
  prepare(samples: readonly StepSample[], scores: readonly StepScore[] = []): void {
    const { maxSequences } = this.#options;
    const numPlaces = samples.length + scores.length;
    invariant(
      numPlaces <= maxSequences,
      `A step has ${samples.length} samples and ${scores.length} scores; ${maxSequences} is the most.`,
    );
    let place = 0;
    let numReports = 0;
    const report = (numTop: number, token: number): void => {
      const at = (this.#reports + place * reportWords.BYTES) / 4;
      this.#words[at + reportWords.NUM_TOP] = numTop;
      this.#words[at + reportWords.TOKEN] = token;
      place++;
      if (numTop >= 0) numReports = place;
    };
    this.#stepFlags = 0;
    for (const { slot } of samples) {
      const { flags, numTop } = this.#slotOf(slot);
      this.#stepFlags |= flags;
      report((flags & slotFlags.LOGPROBS_FLAG) !== 0 ? numTop : -1, -1);
    }
    for (const { token, top } of scores) report(top, token);
    this.#numItems = {
      samples: samples.length,
      sampleChunks: samples.length * this.#numChunks,
      reports: numReports,
      reportChunks: numReports * this.#numChunks,
    };
  }

  /** Of the step that has just run. Counts the tokens for the penalties, so call it once. */
  readResults(samples: readonly StepSample[], scores: readonly StepScore[] = []): StepResult {
    const tokens = samples.map((_, sample) => {
      const token = this.#bestToken(sample);
      // Where no logit is finite, the best one's is not.
      return Number.isFinite(this.#floats[this.#logitsOf(sample) + token]) ? token : NO_TOKEN;
    });
    const logprobs = samples.map(({ slot }, sample) => {
      const { flags, numTop } = this.#slotOf(slot);
      const token = tokens[sample]!;
      if (token === NO_TOKEN) return undefined;
      if ((flags & slotFlags.COUNT_FLAG) !== 0) this.#words[this.#tokenStateOf(slot) + token]!++;
      if ((flags & slotFlags.LOGPROBS_FLAG) === 0) return undefined;
      const { logprob, top } = this.#readReport(sample, token, numTop);
      return { logprob, top };
    });
    return {
      tokens,
      logprobs,
      scores: scores.map(({ token, top }, i) => this.#readReport(samples.length + i, token, top)),
    };
  }

  /** The best of the chunks' best; ties go to the lowest id. */
  #bestToken(sample: number): number {
    let at = this.#bests / 4 + (sample * this.#numChunks * bestWords.BYTES) / 4;
    let best = at;
    for (let chunk = 1; chunk < this.#numChunks; chunk++) {
      at += bestWords.BYTES / 4;
      if (this.#floats[at + bestWords.SCORE]! > this.#floats[best + bestWords.SCORE]!) best = at;
    }
    return this.#words[best + bestWords.TOKEN]!;
  }

  /** ln softmax(x)[i] = x[i] - max - ln(sum of exp(x - max)), the chunks' sums added in their order. */
  #readReport(place: number, token: number, numTop: number): TokenScore {
    const words = this.#words;
    const floats = this.#floats;
    const first = (this.#sums + place * this.#numChunks * sumWords.BYTES) / 4;
    const end = first + (this.#numChunks * sumWords.BYTES) / 4;
    let best = -Infinity;
    let rank = 1;
    for (let at = first; at < end; at += sumWords.BYTES / 4) {
      best = Math.max(best, floats[at + sumWords.FIRST_BEST]!);
      rank += words[at + sumWords.BEFORE]!;
    }
    let sum = 0;
    for (let at = first; at < end; at += sumWords.BYTES / 4) {
      sum += floats[at + sumWords.SUM]! * Math.exp(floats[at + sumWords.FIRST_BEST]! - best);
    }
    const logSum = Math.log(sum);
    const row = this.#logitsOf(place);
    const logprob = (id: number): number => floats[row + id]! - best - logSum;
    const tops = this.#tops / 4 + place * MAX_LOGPROBS;
    // Logits of NaN have no rank; their places hold no token.
    const top = [...words.subarray(tops, tops + numTop)]
      .filter((id) => id < this.#options.vocabularySize)
      .map((id) => ({ token: id, logprob: logprob(id) }));
    return { logprob: logprob(token), rank, top };
  }

  /** Index of the first word of the logits of a sample or score. */
  #logitsOf(place: number): number {
    const { logits, logitsStride, samples } = this.#options;
    const row = this.#words[(samples + place * sampleWords.BYTES) / 4 + sampleWords.LOGITS]!;
    return (logits + row * logitsStride) / 4;
  }

  /** Index of the first word of the slot's token state. */
  #tokenStateOf(slot: number): number {
    return (this.#tokenState + slot * this.#tokenStride) / 4;
  }

  #slotOf(slot: number): { flags: number; numTop: number } {
    const state = this.#slots[slot];
    invariant(state !== undefined, `Slot ${slot} was sampled, which does not exist.`);
    return state;
  }
}
