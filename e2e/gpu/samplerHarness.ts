import { gumbel } from "../../src/backends/reference/rng.ts";
import {
  argmax,
  keepMinP,
  keepTopK,
  keepTopP,
  penalise,
  type TokenCounts,
} from "../../src/backends/reference/sampler.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import { Sampler } from "../../src/backends/webgpu/sampler.ts";
import {
  createSamplerBuffers,
  type SamplerBuffers,
  type SamplerInputs,
} from "../../src/backends/webgpu/samplerKernels.ts";
import type { SamplingParams } from "../../src/engine/sampling.ts";
import type { SlotReset, Step, StepResult } from "../../src/engine/step.ts";
import { EMPTY_STEP } from "../fixtures/emptyStep.ts";

/** A row whose logits are given instead of computed. */
export interface TestSample {
  readonly slot: number;
  readonly position: number;
  readonly logits: Float32Array<ArrayBuffer>;
}

/** A token to be judged by logits that are given. */
export interface TestScore {
  readonly token: number;
  readonly top: number;
  readonly logits: Float32Array<ArrayBuffer>;
}

const HEADER_WORDS = 64;

/** A sampler with the buffers that a plan would give it. */
export class SamplerHarness {
  readonly device: GPUDevice;
  readonly sampler: Sampler;
  readonly #maxSequences: number;
  readonly #vocabularySize: number;
  readonly #logits: GPUBuffer;
  readonly #stepBuffer: GPUBuffer;
  readonly #lastTokens: GPUBuffer;
  readonly #buffers: SamplerBuffers;
  readonly #readback: GPUBuffer;
  #numSteps = 0;
  /** Dispatches of the newest step. */
  numDispatches = 0;

  private constructor(
    device: GPUDevice,
    sizes: { readonly vocabularySize: number; readonly maxSequences: number },
    inputs: SamplerInputs,
    buffers: SamplerBuffers,
    sampler: Sampler,
  ) {
    this.device = device;
    this.sampler = sampler;
    this.#maxSequences = sizes.maxSequences;
    this.#vocabularySize = sizes.vocabularySize;
    this.#logits = inputs.logits;
    this.#stepBuffer = inputs.stepBuffer;
    this.#lastTokens = inputs.lastTokens;
    this.#buffers = buffers;
    this.#readback = device.createBuffer({
      size: sampler.results.size + 4 * sizes.maxSequences,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  static async create(
    device: GPUDevice,
    vocabularySize: number,
    maxSequences: number,
  ): Promise<SamplerHarness> {
    const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const logits = device.createBuffer({ size: 4 * maxSequences * vocabularySize, usage: storage });
    const stepBuffer = device.createBuffer({
      size: 4 * (HEADER_WORDS + 7 + 4 * maxSequences),
      usage: storage | GPUBufferUsage.UNIFORM,
    });
    const lastTokens = device.createBuffer({ size: 4 * maxSequences, usage: storage });
    const sizes = { vocabularySize, maxSequences };
    const buffers = await createSamplerBuffers(device, sizes);
    const sampler = await Sampler.create({
      device,
      kernels: new KernelCache(device),
      ...sizes,
      buffers,
      logits,
      stepBuffer,
      lastTokens,
    });
    const inputs = { logits, stepBuffer, lastTokens };
    return new SamplerHarness(device, sizes, inputs, buffers, sampler);
  }

  /** Runs one step; gives its result and the slots' last tokens. */
  async run(
    resets: readonly SlotReset[],
    samples: readonly TestSample[],
    scores: readonly TestScore[] = [],
  ): Promise<StepResult & { readonly lastTokens: readonly number[] }> {
    const { device, sampler } = this;
    const step: Step = {
      ...EMPTY_STEP,
      id: this.#numSteps++,
      slotResets: resets,
      rows: samples.map(({ slot, position }) => ({
        slot,
        token: 0,
        position: position - 1,
        kvSlot: 0,
      })),
      samples: samples.map(({ slot, position }, row) => ({ row, slot, position })),
      scores: scores.map(({ token, top }) => ({ row: 0, token, top })),
    };
    sampler.resetSlots(resets);
    const samplesAt = HEADER_WORDS + 7; // any word will do
    const places = [...samples, ...scores];
    const words = new Uint32Array(samplesAt + 4 * places.length);
    words.set([samples.length, samples.length, 0, samplesAt, 0, 0, 0, 0, 0, 0, places.length]);
    step.samples.forEach(({ row, slot, position }, i) => {
      words.set([row, slot, position, 0], samplesAt + 4 * i);
    });
    step.scores.forEach(({ row, token, top }, i) => {
      words.set([row, token, top, 1], samplesAt + 4 * (samples.length + i));
    });
    device.queue.writeBuffer(this.#stepBuffer, 0, words);
    places.forEach(({ logits }, i) => {
      device.queue.writeBuffer(this.#logits, 4 * i * this.#vocabularySize, logits);
    });
    const byteLength = await this.#submit(step);
    const bytes = this.#readback.getMappedRange().slice(0);
    this.#readback.unmap();
    const result = sampler.decode(step, bytes.slice(0, byteLength));
    const lastTokens = [...new Uint32Array(bytes, sampler.results.size, this.#maxSequences)];
    return { ...result, lastTokens };
  }

  async #submit(step: Step): Promise<number> {
    const { device, sampler } = this;
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const dispatch = pass.dispatchWorkgroups.bind(pass);
    this.numDispatches = 0;
    pass.dispatchWorkgroups = (...args: Parameters<typeof dispatch>) => {
      this.numDispatches++;
      return dispatch(...args);
    };
    sampler.encode(pass, step);
    pass.end();
    const byteLength = sampler.resultByteLength(step);
    encoder.copyBufferToBuffer(sampler.results, 0, this.#readback, 0, byteLength);
    encoder.copyBufferToBuffer(
      this.#lastTokens,
      0,
      this.#readback,
      sampler.results.size,
      4 * this.#maxSequences,
    );
    device.queue.submit([encoder.finish()]);
    await this.#readback.mapAsync(GPUMapMode.READ);
    return byteLength;
  }

  dispose(): void {
    const own = [this.#logits, this.#stepBuffer, this.#lastTokens, this.#readback];
    for (const buffer of [...own, ...Object.values(this.#buffers)]) buffer.destroy();
  }
}

/** Scores of f32 and f64 differ by their rounding, some 1e-6 of logits of up to 50. */
export const SCORE_MARGIN = 1e-4;
/** Likewise scaled logits against a threshold, relative to the largest. */
const LOGIT_MARGIN = 1e-6;
/** And the mass up to a token: exp's argument and exp itself are good to some 5e-6. */
const MASS_MARGIN = 1e-5;

export type Verdict = "equal" | "near" | "wrong";

/**
 * Judges a sampled token by float64: `equal` to its choice; `near` where a token with a score within
 * SCORE_MARGIN of the best won, or one that a threshold within its margin lets in; else `wrong`.
 */
export function judge(
  token: number,
  logits: Float32Array,
  params: SamplingParams,
  counts: TokenCounts,
  position: number,
): Verdict {
  const adjusted = penalise(Float64Array.from(logits), params, counts);
  const isGreedy = params.temperature === 0;
  const scaled = isGreedy ? adjusted : adjusted.map((x) => x / params.temperature);
  const scores = isGreedy ? adjusted : scaled.map((x, id) => x + gumbel(id, position, params.seed));
  const keep = (minP: number, topP: number): Float64Array =>
    isGreedy ? scaled : keepTopP(keepTopK(keepMinP(scaled, minP), params.topK), topP);
  const bestOf = (kept: Float64Array): number =>
    argmax(scores.map((score, id) => (kept[id]! > -Infinity ? score : -Infinity)));
  if (token === bestOf(keep(params.minP, params.topP))) return "equal";

  const margin = LOGIT_MARGIN * (1 + scaled.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
  const least = (kept: Float64Array): number =>
    kept.reduce((low, x) => (x > -Infinity ? Math.min(low, x) : low), Infinity);
  const loose = least(
    keep(params.minP * (1 - margin), params.topP < 1 ? params.topP + MASS_MARGIN : 1),
  );
  const tight = keep(params.minP * (1 + margin), params.topP < 1 ? params.topP - MASS_MARGIN : 1);
  const tightBound = least(tight) + margin;
  const sure = tight.map((x) => (x > tightBound ? x : -Infinity));
  const isAllowed = scaled[token]! >= loose - margin;
  const isBest =
    scores[token]! >= scores[bestOf(sure)]! - SCORE_MARGIN || sure.every((x) => x === -Infinity);
  return isAllowed && isBest ? "near" : "wrong";
}
