import { invariant } from "../../errors.ts";
import { type CostModel, stepMs } from "../costModel.ts";
import { RequestQueue } from "../requestQueue.ts";
import { type KvUsage, noKvUsage, type Progress, type System, type SystemId } from "../system.ts";
import type { LabRequest } from "../workloads.ts";
import { MAX_MODEL_TOKENS } from "./limits.ts";

/** What tells static batching systems apart. */
export interface StaticBatchRules {
  readonly id: SystemId;
  /** Whether a batch of these requests may get one more. */
  canGrow(batch: readonly LabRequest[], next: LabRequest): boolean;
  /** Times that K and V are moved for each time that they are read. */
  readonly contextFactor: number;
  /** Milliseconds added to a step. */
  readonly stepOverheadMs: number;
}

/**
 * A batch is fixed when it begins: prompts are padded to the longest, all sequences run until the longest
 * answer is there, then all results are returned and the next batch begins.
 */
export class StaticBatch implements System {
  readonly id: SystemId;
  batchSize = 0;
  readonly kv: KvUsage;
  readonly #model: CostModel;
  readonly #rules: StaticBatchRules;
  readonly #waiting = new RequestQueue();
  #batch: LabRequest[] = [];
  #generated = 0;

  constructor(model: CostModel, rules: StaticBatchRules) {
    this.id = rules.id;
    this.#model = model;
    this.#rules = rules;
    this.kv = noKvUsage(model.kvSlots);
  }

  get hasWork(): boolean {
    return this.#batch.length > 0 || this.#waiting.size > 0;
  }

  get numWaiting(): number {
    return this.#waiting.size;
  }

  add(request: LabRequest): void {
    this.#waiting.push(request);
  }

  step(_nowMs: number, progress: Progress): number {
    if (this.#batch.length === 0) this.#fillBatch();
    const batch = this.#batch;
    let sequences = 0;
    let maxPrompt = 0;
    let maxOutput = 0;
    let tokenStates = 0;
    for (const { promptTokens, outputTokens, width } of batch) {
      sequences += width;
      maxPrompt = Math.max(maxPrompt, promptTokens);
      maxOutput = Math.max(maxOutput, outputTokens);
      tokenStates += width * (promptTokens + Math.min(outputTokens, this.#generated));
    }
    const { contextFactor, stepOverheadMs } = this.#rules;
    const rows = sequences * (this.#generated === 0 ? maxPrompt : 1);
    const contextTokens = sequences * (maxPrompt + this.#generated) * contextFactor;
    this.batchSize = batch.length;
    this.kv.tokenStates = tokenStates;
    this.kv.internal = sequences * MAX_MODEL_TOKENS - tokenStates;
    this.#generated += 1;
    this.#reportTokens(progress);
    if (this.#generated === maxOutput) this.#endBatch(progress);
    return stepMs(this.#model, rows, sequences, contextTokens) + stepOverheadMs;
  }

  #fillBatch(): void {
    this.#generated = 0;
    for (;;) {
      const next = this.#waiting.first;
      if (next === undefined) break;
      if (this.#batch.length > 0 && !this.#rules.canGrow(this.#batch, next)) break;
      this.#batch.push(next);
      this.#waiting.shift();
    }
    invariant(this.#batch.length > 0, "A batch was begun without a request.");
  }

  #reportTokens(progress: Progress): void {
    for (const { outputTokens, firstSequence, width } of this.#batch) {
      if (this.#generated > outputTokens) continue;
      for (let i = 0; i < width; i++) progress.token(firstSequence + i);
    }
  }

  #endBatch(progress: Progress): void {
    for (const request of this.#batch) progress.finish(request);
    this.#batch = [];
  }
}

/** Sequences of a batch. */
export function numSequences(batch: readonly LabRequest[]): number {
  return batch.reduce((sum, { width }) => sum + width, 0);
}
