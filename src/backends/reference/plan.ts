import { type SamplingParams, usesPenalties } from "../../engine/sampling.ts";
import {
  NO_TOKEN,
  SAMPLED_TOKEN,
  type Step,
  type StepHandle,
  type StepResult,
  type StepRow,
  type StepSample,
  type StepScore,
  type TokenLogprobs,
} from "../../engine/step.ts";
import { invariant, QuireError } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Plan, PlanSpec } from "../ops.ts";
import { checkStep } from "./checkStep.ts";
import { KvPool } from "./kvPool.ts";
import { logprobs, sample, score } from "./sampler.ts";
import { Weights } from "./weights.ts";

/** What an op sees of a step. Tokens are ids; the sampled ones are filled in. */
export interface StepContext {
  readonly rows: readonly StepRow[];
  readonly samples: readonly StepSample[];
  readonly scores: readonly StepScore[];
  readonly pool: KvPool;
  readonly weights: Weights;
  /** [samples, then scores][vocabularySize], set by the last op. */
  logits: readonly Float32Array[];
}

export type Op = (step: StepContext) => void;

/** A slot's sampling state: resident from step to step. */
interface SlotState {
  readonly sampling: SamplingParams;
  readonly prompt: ReadonlySet<number>;
  readonly output: Map<number, number>;
  sampledToken: number | undefined;
}

/** Runs a step at once when it is submitted. */
export class ReferencePlan implements Plan {
  readonly numBlocks: number;
  readonly maxRows: number;
  readonly blockBytes: number;
  readonly #spec: PlanSpec;
  readonly #ops: readonly Op[];
  #weights: Weights;
  #pool: KvPool;
  readonly #slots = new Map<number, SlotState>();
  #logits: readonly Float32Array[] = [];
  #isDisposed = false;

  constructor(spec: PlanSpec, ops: readonly Op[], tensors: readonly TensorInfo[]) {
    this.#spec = spec;
    this.#ops = ops;
    this.#weights = new Weights(tensors);
    this.#pool = new KvPool(spec);
    this.numBlocks = spec.numBlocks;
    this.maxRows = spec.maxRows;
    this.blockBytes = this.#pool.blockBytes;
  }

  get memory(): Plan["memory"] {
    return {
      weights: this.#weights.byteLength,
      kvPool: this.#pool.byteLength,
      scratch: 0,
      swapped: this.#pool.swappedBytes,
    };
  }

  get tensors(): readonly TensorInfo[] {
    return this.#weights.tensors;
  }

  async writeRows(tensor: TensorInfo, rowStart: number, bytes: Uint8Array): Promise<void> {
    this.#checkAlive();
    this.#weights.writeRows(tensor, rowStart, bytes);
  }

  submit(step: Step): StepHandle {
    // Through a promise, so that an error reaches the caller where a GPU's would.
    const result = (async () => this.#run(step))();
    result.catch(() => {}); // the caller may look at it late, or never
    return { result };
  }

  async readLogits(): Promise<Float32Array> {
    this.#checkAlive();
    const { vocabularySize } = this.#spec;
    const all = new Float32Array(this.#logits.length * vocabularySize);
    for (const [i, logits] of this.#logits.entries()) all.set(logits, i * vocabularySize);
    return all;
  }

  dispose(): void {
    this.#isDisposed = true;
    // The memory goes even if somebody still holds the plan.
    this.#weights = new Weights([]);
    this.#pool = new KvPool({ ...this.#spec, numBlocks: 0 });
    this.#slots.clear();
    this.#logits = [];
  }

  #run(step: Step): StepResult {
    this.#checkAlive();
    this.#weights.checkComplete();
    checkStep(step, this.#spec);
    this.#moveBlocks(step);
    this.#enterSlots(step);
    const context: StepContext = {
      rows: step.rows.map((row) => this.#resolve(row)),
      samples: step.samples,
      scores: step.scores,
      pool: this.#pool,
      weights: this.#weights,
      logits: [],
    };
    for (const op of this.#ops) op(context);
    this.#logits = context.logits;

    const tokens: number[] = [];
    const reports: (TokenLogprobs | undefined)[] = [];
    for (const [i, { slot, position }] of step.samples.entries()) {
      const logits = context.logits[i]!; // [vocabularySize]
      const state = this.#slot(slot);
      const token = sample(logits, state.sampling, state, position);
      state.sampledToken = token;
      if (!Number.isFinite(logits[token])) {
        tokens.push(NO_TOKEN);
        reports.push(undefined);
        continue;
      }
      state.output.set(token, (state.output.get(token) ?? 0) + 1);
      tokens.push(token);
      const count = state.sampling.logprobs;
      reports.push(count === undefined ? undefined : logprobs(logits, token, count));
    }
    const scores = step.scores.map(({ token, top }, i) =>
      score(context.logits[step.samples.length + i]!, token, top),
    );
    return { tokens, logprobs: reports, scores };
  }

  #moveBlocks({ hostReleases, swapOuts, swapIns, copies }: Step): void {
    for (const hostBlock of hostReleases) this.#pool.release(hostBlock);
    for (const swap of swapOuts) this.#pool.swapOut(swap);
    for (const swap of swapIns) this.#pool.swapIn(swap);
    for (const copy of copies) this.#pool.copy(copy);
  }

  #enterSlots({ slotResets, blockTableEntries, samples }: Step): void {
    for (const { slot, sampling, promptTokens, outputTokens } of slotResets) {
      this.#pool.resetSlot(slot);
      const output = new Map<number, number>();
      for (const token of outputTokens) output.set(token, (output.get(token) ?? 0) + 1);
      this.#slots.set(slot, {
        sampling,
        prompt: new Set(promptTokens),
        output,
        sampledToken: undefined,
      });
    }
    for (const { slot, index, block } of blockTableEntries) this.#pool.setBlock(slot, index, block);
    const sampled = new Set<number>();
    for (const { slot } of samples) {
      invariant(
        !sampled.has(slot) || !usesPenalties(this.#slot(slot).sampling),
        `Slot ${slot} counts tokens for its penalties and has several samples in a step.`,
      );
      sampled.add(slot);
    }
  }

  #resolve(row: StepRow): StepRow {
    const kvSlot = this.#pool.kvSlot(row.slot, row.position);
    invariant(
      row.kvSlot === kvSlot,
      `A row of slot ${row.slot} writes its K and V to ${row.kvSlot}; its block table says ${kvSlot}.`,
    );
    const token = row.token === SAMPLED_TOKEN ? this.#slot(row.slot).sampledToken : row.token;
    invariant(token !== undefined, `Slot ${row.slot} has sampled no token yet.`);
    invariant(
      token >= 0 && token < this.#spec.vocabularySize,
      `Token ${token} is not in the vocabulary of ${this.#spec.vocabularySize}.`,
    );
    return { ...row, token };
  }

  #slot(slot: number): SlotState {
    const state = this.#slots.get(slot);
    invariant(state, `Slot ${slot} was never reset.`);
    return state;
  }

  #checkAlive(): void {
    if (this.#isDisposed) throw new QuireError("disposed", "The plan was disposed.");
  }
}
