import type { SlotReset, StepResult, StepScore } from "../../../engine/step.ts";
import { defineSampleKernels } from "../kernels/sample.ts";
import { Sampler } from "../sampler.ts";
import { KernelHarness } from "./kernelHarness.ts";

/** A row whose logits are given instead of computed. */
export interface TestSample {
  readonly slot: number;
  readonly position: number;
  readonly logits: Float32Array;
}

export interface TestScore {
  readonly token: number;
  readonly top: number;
  readonly logits: Float32Array;
}

/** A sampler in a memory of its own, with the logits and samples that a plan would give it. */
export class SamplerHarness {
  readonly sampler: Sampler;
  readonly #kernels = new KernelHarness(defineSampleKernels());
  readonly #logits: number;
  readonly #logitsStride: number;
  readonly #samples: number;

  private constructor(vocabularySize: number, maxSequences: number) {
    const { arena, program } = this.#kernels;
    this.#logitsStride = 16 * Math.ceil(vocabularySize / 4 + 1);
    this.#logits = arena.reserve("logits", maxSequences * this.#logitsStride);
    this.#samples = arena.reserve("samples", maxSequences * 16);
    this.sampler = new Sampler(arena, program, {
      maxSequences,
      vocabularySize,
      logits: this.#logits,
      logitsStride: this.#logitsStride,
      samples: this.#samples,
    });
  }

  static async create(vocabularySize: number, maxSequences: number): Promise<SamplerHarness> {
    const harness = new SamplerHarness(vocabularySize, maxSequences);
    const kernels = harness.#kernels;
    await kernels.bind();
    // What lies behind a row must not matter: let it be better than everything.
    const numFloats = (maxSequences * harness.#logitsStride) / 4;
    kernels.float32(harness.#logits, numFloats).fill(3e38);
    harness.sampler.bind(kernels.memory);
    return harness;
  }

  /** Runs one step. */
  run(
    resets: readonly SlotReset[],
    samples: readonly TestSample[],
    { scores = [], numThreads = 1 }: { scores?: readonly TestScore[]; numThreads?: number } = {},
  ): StepResult {
    const { sampler } = this;
    const stepSamples = samples.map(({ slot, position }, row) => ({ row, slot, position }));
    const stepScores: StepScore[] = scores.map(({ token, top }, i) => ({
      row: samples.length + i,
      token,
      top,
    }));
    sampler.resetSlots(resets);
    for (const [i, { logits }] of [...samples, ...scores].entries()) {
      this.#kernels.float32(this.#logits + i * this.#logitsStride, logits.length).set(logits);
    }
    const table = this.#kernels.int32(this.#samples, samples.length * 4);
    for (const [i, { row, slot, position }] of stepSamples.entries()) {
      table.set([row, slot, position, 0], 4 * i);
    }
    sampler.prepare(stepSamples, stepScores);
    // More rows than one: with one, a program is cut into fewer chunks.
    this.#kernels.run(
      { rows: samples.length + scores.length, logits: samples.length + scores.length },
      numThreads,
    );
    return sampler.readResults(stepSamples, stepScores);
  }
}
