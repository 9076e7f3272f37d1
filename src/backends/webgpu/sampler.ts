import { MAX_LOGIT_BIAS, MAX_LOGPROBS } from "../../engine/sampling.ts";
import {
  NO_TOKEN,
  type SlotReset,
  type Step,
  type StepResult,
  type TokenScore,
} from "../../engine/step.ts";
import { invariant } from "../../errors.ts";
import { createSlotState, slotFlags, slotWords } from "../slotRecord.ts";
import type { KernelCache } from "./kernel.ts";
import type { SamplerBuffers, SamplerKernelName, SamplerKernels } from "./samplerKernels.ts";
import { createSamplerKernels, RECORD_WORDS, sampleGroups } from "./samplerKernels.ts";

export interface SamplerOptions {
  readonly device: GPUDevice;
  readonly kernels: KernelCache;
  readonly vocabularySize: number;
  readonly maxSequences: number;
  /** The sampler's own, which the plan frees. */
  readonly buffers: SamplerBuffers;
  /** f32 [maxSequences][vocabularySize]: the raw logits of the step's samples, then of its scores. STORAGE. */
  readonly logits: GPUBuffer;
  /** The step as uploaded: a header of 256 bytes, then arrays. STORAGE | UNIFORM. */
  readonly stepBuffer: GPUBuffer;
  /** u32 [maxSequences]: the id last sampled for each slot. STORAGE; written here. */
  readonly lastTokens: GPUBuffer;
}

/** What must be known of a sample or score after slots may have been reset. */
interface PlaceInfo {
  readonly wantsLogprobs: boolean;
  readonly numTop: number;
}

/**
 * Samples and scores tokens on the GPU. Bound to one plan's buffers for life; creates nothing per step.
 * For each step, in this order: `resetSlots`, `encode`, then a copy of `resultByteLength` bytes of
 * `results`, and `decode` whenever those bytes arrive, also after later steps were encoded.
 */
export class Sampler {
  readonly #device: GPUDevice;
  readonly #options: SamplerOptions;
  readonly #kernels: SamplerKernels;
  readonly #slots: { flags: number; numTop: number }[];
  readonly #infos = new WeakMap<Step, readonly PlaceInfo[]>();

  private constructor(options: SamplerOptions, kernels: SamplerKernels) {
    this.#device = options.device;
    this.#options = options;
    this.#kernels = kernels;
    this.#slots = Array.from({ length: options.maxSequences }, () => ({ flags: 0, numTop: 0 }));
  }

  /** Compiles. */
  static async create(options: SamplerOptions): Promise<Sampler> {
    const { kernels, buffers } = options;
    return new Sampler(options, await createSamplerKernels(kernels, options, options, buffers));
  }

  /** u32 ids [maxSequences] by sample, then log-probability records [maxSequences] by sample or score. COPY_SRC. */
  get results(): GPUBuffer {
    return this.#options.buffers.results;
  }

  /** Bytes of GPU memory that the sampler holds. */
  get byteLength(): number {
    return Object.values(this.#options.buffers).reduce((sum, buffer) => sum + buffer.size, 0);
  }

  /** Uploads the state of slots that a step resets, before the step is submitted. Throws `invalid-argument`. */
  resetSlots(resets: readonly SlotReset[]): void {
    const { vocabularySize, maxSequences } = this.#options;
    const { slotRecords, biases, tokenState } = this.#options.buffers;
    const { queue } = this.#device;
    for (const reset of resets) {
      const { slot } = reset;
      invariant(slot >= 0 && slot < maxSequences, `Slot ${slot} of ${maxSequences} was reset.`);
      const state = createSlotState(reset, vocabularySize);
      queue.writeBuffer(slotRecords, slot * slotWords.SLOT_WORDS * 4, state.record);
      if (state.biases.length > 0) {
        queue.writeBuffer(biases, slot * MAX_LOGIT_BIAS * 8, state.biases);
      }
      if (state.tokenState !== undefined) {
        queue.writeBuffer(tokenState, slot * vocabularySize * 4, state.tokenState);
      }
      this.#slots[slot] = { flags: state.flags, numTop: state.numTop };
    }
  }

  /**
   * Writes the step's sampling and scoring into the pass: two dispatches if anything is sampled, and more
   * only for what is asked for. A stage touches only samples that asked for it, so a sample's result never
   * depends on the others.
   */
  encode(pass: GPUComputePassEncoder, step: Step): void {
    const infos = this.#infoOf(step);
    if (step.samples.length > 0) this.#encodeSampling(pass, step);
    if (infos.some(({ wantsLogprobs }) => wantsLogprobs)) {
      this.#dispatch(pass, "logSum", infos.length);
      this.#dispatch(pass, "logprobs", infos.length);
    }
  }

  #encodeSampling(pass: GPUComputePassEncoder, step: Step): void {
    let flags = 0;
    let numRounds = 0;
    for (const { slot } of step.samples) {
      const own = this.#slots[slot]!.flags;
      flags |= own;
      const numSelections =
        Number((own & slotFlags.TOP_K_FLAG) !== 0) + Number((own & slotFlags.TOP_P_FLAG) !== 0);
      numRounds = Math.max(numRounds, 4 * numSelections);
    }
    const dispatch = (name: SamplerKernelName): void =>
      this.#dispatch(pass, name, step.samples.length);
    if ((flags & slotFlags.ADJUST_FLAG) !== 0) dispatch("adjust");
    if ((flags & slotFlags.SELECT_FLAG) !== 0) dispatch("bound");
    for (let round = 0; round < numRounds; round++) {
      dispatch("histogram");
      dispatch("pick");
    }
    dispatch("choose");
    dispatch("merge");
  }

  #dispatch(pass: GPUComputePassEncoder, name: SamplerKernelName, numPlaces: number): void {
    const { pipeline, bindGroup, groups } = this.#kernels[name];
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    if (groups === undefined) pass.dispatchWorkgroups(sampleGroups(numPlaces));
    else pass.dispatchWorkgroups(groups, numPlaces);
  }

  /** Bytes of `results`, from its start, that hold the step's outcome: the ids, and log-probabilities if asked for. */
  resultByteLength(step: Step): number {
    const infos = this.#infoOf(step);
    const numRecords = infos.findLastIndex((info) => info.wantsLogprobs) + 1;
    if (numRecords === 0) return 4 * step.samples.length;
    return 4 * (this.#options.maxSequences + numRecords * RECORD_WORDS);
  }

  /** Reads the bytes of `results` that were copied after the step. */
  decode(step: Step, bytes: ArrayBuffer): StepResult {
    const infos = this.#infoOf(step);
    const words = new Uint32Array(bytes);
    const floats = new Float32Array(bytes);
    const tokens = new Int32Array(bytes, 0, step.samples.length); // NO_TOKEN is -1 here and on the GPU
    const readRecord = (place: number, numTop: number): TokenScore => {
      const record = this.#options.maxSequences + place * RECORD_WORDS;
      const top: { token: number; logprob: number }[] = [];
      for (let at = record + 2; at < record + 2 + 2 * numTop; at += 2) {
        // Logits of NaN have no rank; their places hold no token.
        const token = words[at]!;
        if (token < this.#options.vocabularySize) top.push({ token, logprob: floats[at + 1]! });
      }
      return { logprob: floats[record]!, rank: words[record + 1]!, top };
    };
    const numSamples = step.samples.length;
    return {
      tokens: [...tokens],
      logprobs: infos.slice(0, numSamples).map(({ wantsLogprobs, numTop }, sample) => {
        if (!wantsLogprobs || tokens[sample] === NO_TOKEN) return undefined;
        const { logprob, top } = readRecord(sample, numTop);
        return { logprob, top };
      }),
      scores: step.scores.map(({ top }, score) => readRecord(numSamples + score, top)),
    };
  }

  /** What the step's samples, then its scores ask for, fixed at the first question: before the slots are reset again. */
  #infoOf(step: Step): readonly PlaceInfo[] {
    const known = this.#infos.get(step);
    if (known !== undefined) return known;
    const { samples, scores } = step;
    invariant(
      samples.length + scores.length <= this.#options.maxSequences,
      `Step ${step.id} has ${samples.length} samples and ${scores.length} scores; ${this.#options.maxSequences} is the most.`,
    );
    const sampleInfos = samples.map(({ slot }) => {
      const state = this.#slots[slot];
      invariant(state !== undefined, `Step ${step.id} samples slot ${slot}, which does not exist.`);
      const wantsLogprobs = (state.flags & slotFlags.LOGPROBS_FLAG) !== 0;
      return { wantsLogprobs, numTop: wantsLogprobs ? state.numTop : 0 };
    });
    const scoreInfos = scores.map(({ top }) => {
      invariant(top <= MAX_LOGPROBS, `A score names ${top} tokens; ${MAX_LOGPROBS} is the most.`);
      return { wantsLogprobs: true, numTop: top };
    });
    const infos = [...sampleInfos, ...scoreInfos];
    this.#infos.set(step, infos);
    return infos;
  }
}
