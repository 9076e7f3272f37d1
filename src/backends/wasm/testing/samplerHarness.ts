import type { SlotReset, StepResult, StepScore } from "../../../engine/step.ts";
import { LOGITS_ROW_BYTES, sampleWords } from "../abi.ts";
import { defineSampleKernels } from "../kernels/sample.ts";
import { Sampler } from "../sampler.ts";
import { writeSamples } from "../stepTables.ts";
import { KernelHarness } from "./kernelHarness.ts";

/** A sample whose logits are given instead of computed; samples of one array share a row of them. */
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
  readonly #logitsRows: number;

  private constructor(vocabularySize: number, maxSequences: number) {
    const { arena, program } = this.#kernels;
    this.#logitsStride = 16 * Math.ceil(vocabularySize / 4 + 1);
    this.#logits = arena.reserve("logits", maxSequences * this.#logitsStride);
    this.#samples = arena.reserve("samples", maxSequences * sampleWords.BYTES);
    this.#logitsRows = arena.reserve("logits rows", maxSequences * LOGITS_ROW_BYTES);
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
    const rows = [...new Set([...samples, ...scores].map(({ logits }) => logits))];
    const stepSamples = samples.map(({ slot, position, logits }) => ({
      row: rows.indexOf(logits),
      slot,
      position,
    }));
    const stepScores: StepScore[] = scores.map(({ token, top, logits }) => ({
      row: rows.indexOf(logits),
      token,
      top,
    }));
    sampler.resetSlots(resets);
    for (const [row, logits] of rows.entries()) {
      this.#kernels.float32(this.#logits + row * this.#logitsStride, logits.length).set(logits);
    }
    // They meet the rows in their order, so that row i of the step has row i of the logits.
    const tables = { samples: this.#samples, logitsRows: this.#logitsRows };
    const step = { samples: stepSamples, scores: stepScores };
    writeSamples(step, this.#kernels.int32(), tables);
    sampler.prepare(stepSamples, stepScores);
    // More rows than one: with one, a program is cut into fewer chunks.
    this.#kernels.run({ rows: samples.length + scores.length, logits: rows.length }, numThreads);
    return sampler.readResults(stepSamples, stepScores);
  }
}
