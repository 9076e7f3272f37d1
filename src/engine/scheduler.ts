import { invariant } from "../errors.ts";
import { KvCache } from "./kvCache.ts";
import { type FinishReason, NO_SLOT, type Sequence } from "./sequence.ts";
import { SequenceQueue } from "./sequenceQueue.ts";
import type { StepBudget } from "./stepBudget.ts";
import { type ScheduledStep, StepBuilder } from "./stepBuilder.ts";

export interface SchedulerOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** Slots of the back end: most sequences that run at once, and most rows of a step with logits. */
  readonly maxSequences: number;
  readonly budget: StepBudget;
}

/**
 * Decides who runs. There is no prefill and no decode phase: each step hands out rows so that
 * `numComputedTokens` catches up with `numTokens`, which covers prompts in chunks, prefix hits,
 * decoding and resuming alike.
 *
 * First come, first served: admission is in order of arrival and the latest arrival is preempted first,
 * so `running` followed by `waiting` is always in order of arrival.
 */
export class Scheduler {
  readonly kvCache: KvCache;
  readonly running = new SequenceQueue();
  readonly waiting = new SequenceQueue();
  numPreemptions = 0;
  numSteps = 0;
  /** Prompt tokens looked up in the prefix cache and found there, counted at first admission only. */
  prefixCacheQueries = 0;
  prefixCacheHits = 0;

  readonly #blockSize: number;
  readonly #budget: StepBudget;
  readonly #freeSlots: number[];
  readonly #maxSequences: number;

  constructor(options: SchedulerOptions) {
    this.kvCache = new KvCache(options.numBlocks, options.blockSize);
    this.#blockSize = options.blockSize;
    this.#budget = options.budget;
    this.#maxSequences = options.maxSequences;
    this.#freeSlots = Array.from({ length: options.maxSequences }, (_, i) => i).reverse();
  }

  add(sequence: Sequence): void {
    this.waiting.pushBack(sequence);
  }

  /** The next step, its blocks taken and its rows counted as computed; undefined if there is no work. */
  schedule(): ScheduledStep | undefined {
    if (this.running.size + this.waiting.size === 0) return undefined;
    const builder = new StepBuilder(this.#blockSize);
    this.#scheduleDecodes(builder);
    const maxRows = builder.numRows + this.#budget.prefillRows(builder.numRows);
    this.#schedulePrompts(builder, maxRows);
    this.#admitWaiting(builder, maxRows);
    // Alone, the first sequence always fits: `createRequest` refused what does not.
    invariant(builder.numRows > 0, "Sequences are unfinished but none can run.");
    this.numSteps += 1;
    return builder.build(this.numSteps);
  }

  /** Puts a running sequence back to the front of the queue; its tokens are kept and recomputed. */
  preempt(sequence: Sequence): void {
    this.#leaveSlot(sequence);
    sequence.status = "waiting";
    this.waiting.pushFront(sequence);
    this.numPreemptions += 1;
  }

  /** Preempts all, last first, so that the order of arrival is kept. */
  preemptAll(): void {
    while (this.running.last !== undefined) this.preempt(this.running.last);
  }

  /** Ends an unfinished sequence; safe while a step with it is in flight. */
  finish(sequence: Sequence, reason: FinishReason): void {
    if (sequence.status === "running") this.#leaveSlot(sequence);
    else this.waiting.remove(sequence);
    sequence.status = "finished";
    sequence.finishReason = reason;
  }

  /** Throws `internal` if queues, slots, blocks and prefixes contradict each other. O(everything). */
  checkIntegrity(): void {
    const slots = new Set(this.#freeSlots);
    let arrival = -1;
    for (const queue of [this.running, this.waiting]) {
      let size = 0;
      for (const sequence of queue) {
        const name = `Sequence ${sequence.index} of request ${sequence.requestId}`;
        const runs = queue === this.running;
        invariant(sequence.status === (runs ? "running" : "waiting"), `${name} is misplaced.`);
        invariant(sequence.arrival > arrival, `${name} is out of order.`);
        invariant(runs !== (sequence.slot === NO_SLOT), `${name} has the wrong slot.`);
        invariant(runs || sequence.blockTable.length === 0, `${name} waits but holds blocks.`);
        if (runs) slots.add(sequence.slot);
        arrival = sequence.arrival;
        size += 1;
      }
      invariant(size === queue.size, `A queue of ${size} sequences says ${queue.size}.`);
    }
    invariant(
      slots.size === this.#maxSequences &&
        this.#freeSlots.length + this.running.size === this.#maxSequences,
      `${this.#freeSlots.length} free slots and ${this.running.size} running sequences share ${slots.size} slots of ${this.#maxSequences}.`,
    );
    this.kvCache.checkIntegrity(this.running);
  }

  /** One row for each sequence that lacks one token, whoever must be preempted for it. */
  #scheduleDecodes(builder: StepBuilder): void {
    for (let sequence = this.running.first; sequence !== undefined; sequence = sequence.next) {
      if (sequence.numMissingTokens !== 1) continue;
      if (!this.kvCache.canAppend(sequence)) {
        // The victim is at or behind `sequence`, so no row of it is in this step yet.
        while (!this.kvCache.grow(sequence)) {
          const victim = this.running.last!;
          this.preempt(victim);
          if (victim === sequence) return;
        }
        builder.addLastBlock(sequence);
      }
      this.#scheduleRows(sequence, 1, builder);
    }
  }

  /** Next chunks of the sequences that lack more than one token; they hold their blocks already. */
  #schedulePrompts(builder: StepBuilder, maxRows: number): void {
    for (let sequence = this.running.first; sequence !== undefined; sequence = sequence.next) {
      if (this.#isFull(builder, maxRows)) return;
      if (sequence.numMissingTokens === 0) continue; // scheduled above
      this.#scheduleChunk(sequence, builder, maxRows);
    }
  }

  /** A chunk that lacks room for rows or logits fills the step, so that nobody behind it overtakes. */
  #scheduleChunk(sequence: Sequence, builder: StepBuilder, maxRows: number): void {
    let count = Math.min(sequence.numMissingTokens, maxRows - builder.numRows);
    if (sequence.lacksScores) {
      // From the first row that is needed on, every row's logits are: scores, then the sample.
      const first = Math.max(sequence.firstNeededRow, sequence.numComputedTokens);
      const end = first + this.#maxSequences - builder.numLogits;
      count = Math.min(count, end - sequence.numComputedTokens);
    }
    this.#scheduleRows(sequence, count, builder);
  }

  #isFull(builder: StepBuilder, maxRows: number): boolean {
    return builder.numRows === maxRows || builder.numLogits === this.#maxSequences;
  }

  /**
   * Admits waiting sequences in order until slots, rows or blocks run out. Never preempts. Whoever was
   * preempted in this step is first in the queue and stays there: it needs at least the blocks that it
   * had, and one of them is gone.
   */
  #admitWaiting(builder: StepBuilder, maxRows: number): void {
    while (this.#freeSlots.length > 0 && !this.#isFull(builder, maxRows)) {
      const sequence = this.waiting.first;
      if (sequence === undefined || !this.kvCache.admit(sequence)) return;
      this.waiting.remove(sequence);
      this.running.pushBack(sequence);
      sequence.status = "running";
      sequence.slot = this.#freeSlots.pop()!;
      if (sequence.cachedTokens === undefined) {
        sequence.cachedTokens = sequence.numComputedTokens;
        this.prefixCacheQueries += sequence.numPromptTokens;
        this.prefixCacheHits += sequence.numComputedTokens;
      }
      builder.addSlotReset(sequence);
      this.#scheduleChunk(sequence, builder, maxRows);
    }
  }

  #scheduleRows(sequence: Sequence, count: number, builder: StepBuilder): void {
    builder.addRows(sequence, count);
    sequence.numComputedTokens += count;
    this.kvCache.cacheFullBlocks(sequence);
  }

  #leaveSlot(sequence: Sequence): void {
    this.running.remove(sequence);
    this.kvCache.release(sequence);
    this.#freeSlots.push(sequence.slot);
    sequence.slot = NO_SLOT;
    sequence.lastTokenInSlot = false;
  }
}
