import { invariant } from "../../errors.ts";
import { type CostModel, copyMs, stepMs } from "../costModel.ts";
import { RequestQueue } from "../requestQueue.ts";
import { type KvUsage, noKvUsage, type Progress, type System } from "../system.ts";
import type { LabRequest } from "../workloads.ts";

/** Defaults of TGI's launcher in June 2023, from memory. */
const MAX_BATCH_PREFILL_TOKENS = 4096;
const WAITING_SERVED_RATIO = 1.2;
const MAX_WAITING_TOKENS = 20;

/**
 * Part of the KV pool that batches may reserve. When two batches are joined their K and V are copied into a
 * new tensor of the whole size while the old ones are alive, so a budget of more than half runs out of memory.
 */
const BUDGET_PART = 0.5;

/** One sequence: TGI runs the samples of a request as requests of their own. */
interface Entry {
  readonly request: LabRequest;
  readonly sequence: number;
  readonly reserved: number;
  generated: number;
}

/**
 * Text Generation Inference as of June 2023: continuous batching over contiguous K and V for prompt and
 * longest answer, reserved at admission. A new batch's prompts run alone while the others pause, then
 * the two are joined by a copy. Nobody is preempted.
 */
export class Tgi implements System {
  readonly id = "tgi";
  batchSize = 0;
  readonly kv: KvUsage;
  readonly #model: CostModel;
  readonly #waiting = new RequestQueue();
  /** Samples of the first waiting request that have been admitted already. */
  #admittedSamples = 0;
  #running: Entry[] = [];
  #reserved = 0;
  #stepsSincePrefill = 0;
  #numWaitingSequences = 0;
  /** By request: samples that have not ended. */
  readonly #open = new Map<number, number>();

  constructor({ model }: { readonly model: CostModel }) {
    this.#model = model;
    this.kv = noKvUsage(model.kvSlots);
  }

  get hasWork(): boolean {
    return this.#running.length > 0 || this.#waiting.size > 0;
  }

  get numWaiting(): number {
    return this.#waiting.size;
  }

  add(request: LabRequest): void {
    this.#waiting.push(request);
    this.#numWaitingSequences += request.width;
    this.#open.set(request.index, request.width);
  }

  step(_nowMs: number, progress: Progress): number {
    const batch = this.#nextBatch();
    if (batch.length > 0) return this.#prefill(batch, progress);
    invariant(this.#running.length > 0, "A request does not fit TGI's memory even alone.");
    this.#stepsSincePrefill += 1;
    const { length } = this.#running;
    const contextTokens = this.#contextTokens();
    this.#account();
    this.#advance(this.#running, progress);
    return stepMs(this.#model, length, length, contextTokens);
  }

  /** Sequences to admit now, in order of arrival; none if there are too few of them for a pause yet. */
  #nextBatch(): Entry[] {
    const numRunning = this.#running.length;
    const isOverdue = numRunning === 0 || this.#stepsSincePrefill >= MAX_WAITING_TOKENS;
    const minSize = isOverdue ? 1 : Math.ceil(numRunning * WAITING_SERVED_RATIO);
    if (this.#numWaitingSequences < minSize) return [];
    const budget = Math.floor(this.#model.kvSlots * BUDGET_PART) - this.#reserved;
    const chosen = this.#fitting(budget);
    if (chosen < minSize) return [];
    return Array.from({ length: chosen }, () => this.#take());
  }

  /** How many of the first waiting sequences fit. */
  #fitting(budget: number): number {
    let count = 0;
    let prefillTokens = 0;
    let reserved = 0;
    for (const [i, request] of this.#waiting.entries()) {
      const { promptTokens, outputTokens, width } = request;
      for (let sample = i === 0 ? this.#admittedSamples : 0; sample < width; sample++) {
        prefillTokens += promptTokens;
        reserved += promptTokens + outputTokens;
        if (prefillTokens > MAX_BATCH_PREFILL_TOKENS || reserved > budget) return count;
        count += 1;
      }
    }
    return count;
  }

  #take(): Entry {
    const request = this.#waiting.first!;
    const entry: Entry = {
      request,
      sequence: request.firstSequence + this.#admittedSamples,
      reserved: request.promptTokens + request.outputTokens,
      generated: 0,
    };
    this.#admittedSamples += 1;
    this.#numWaitingSequences -= 1;
    if (this.#admittedSamples === request.width) {
      this.#waiting.shift();
      this.#admittedSamples = 0;
    }
    this.#reserved += entry.reserved;
    return entry;
  }

  #prefill(batch: Entry[], progress: Progress): number {
    const rows = batch.reduce((sum, { request }) => sum + request.promptTokens, 0);
    // Joining moves what both batches have reserved.
    const joinMs = this.#running.length === 0 ? 0 : copyMs(this.#model, this.#reserved);
    this.#stepsSincePrefill = 0;
    const numBefore = this.#running.length;
    this.#running.push(...batch);
    this.#account();
    this.#advance(this.#running, progress, numBefore);
    return stepMs(this.#model, rows, batch.length, rows) + joinMs;
  }

  #contextTokens(): number {
    let sum = 0;
    for (const { request, generated } of this.#running) sum += request.promptTokens + generated;
    return sum;
  }

  #account(): void {
    const tokenStates = this.#contextTokens();
    this.kv.tokenStates = tokenStates;
    this.kv.reserved = this.#reserved - tokenStates;
    this.batchSize = this.#running.length;
  }

  /** One more token for all from `start` on; those that are done leave. */
  #advance(running: Entry[], progress: Progress, start = 0): void {
    let numLeft = start;
    for (let i = start; i < running.length; i++) {
      const entry = running[i]!;
      entry.generated += 1;
      progress.token(entry.sequence);
      if (entry.generated < entry.request.outputTokens) {
        running[numLeft] = entry;
        numLeft += 1;
      } else this.#end(entry, progress);
    }
    running.length = numLeft;
  }

  #end({ request, reserved }: Entry, progress: Progress): void {
    this.#reserved -= reserved;
    const open = this.#open.get(request.index)! - 1;
    this.#open.set(request.index, open);
    if (open > 0) return;
    this.#open.delete(request.index);
    progress.finish(request);
  }
}
