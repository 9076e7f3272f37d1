import { Admission } from "./admission.ts";
import type { EventLog } from "./eventLog.ts";
import { fairShares } from "./fairShares.ts";
import { HostBlocks } from "./hostBlocks.ts";
import { KvCache } from "./kvCache.ts";
import type { EngineMetrics } from "./metrics.ts";
import { LOOKAHEAD, Newcomers, type WaitingOrder } from "./newcomers.ts";
import type { OutputEstimate } from "./outputEstimate.ts";
import { isSeated, numForksOf, type PreemptReason, Residents } from "./residents.ts";
import type { Sequence } from "./sequence.ts";
import type { StepBudget } from "./stepBudget.ts";
import { type ScheduledStep, StepBuilder } from "./stepBuilder.ts";
import type { SwapPolicy } from "./swapPolicy.ts";
import { chooseVictim, comesBefore } from "./victim.ts";

/** Admissions that may overtake a sequence that does not fit. Then nobody behind it goes before it. */
export const MAX_SKIPS = 32;

export interface SchedulerOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** Blocks of host memory for swapped-out sequences. */
  readonly numHostBlocks: number;
  /** Most sequences that run at once. */
  readonly numSlots: number;
  /** Most rows of a step with logits; at least `numSlots`. */
  readonly maxLogits: number;
  readonly waitingOrder: WaitingOrder;
  readonly budget: StepBudget;
  readonly swapPolicy: SwapPolicy;
  readonly estimate: OutputEstimate;
  readonly events: EventLog;
  readonly metrics: EngineMetrics;
  /** Milliseconds of any monotonic clock. */
  readonly now: () => number;
}

/**
 * Decides who gets rows. There is no prefill and no decode phase: each step hands out rows so that
 * `numComputedTokens` catches up with `numTokens`, which covers prompts in chunks, prefix hits,
 * decoding, drafts and resuming alike.
 */
export class Scheduler {
  readonly kvCache: KvCache;
  readonly residents: Residents;
  numSteps = 0;
  /** Steps whose results have come. */
  numCompletedSteps = 0;

  readonly #options: SchedulerOptions;
  readonly #admission: Admission;
  readonly #newcomers: Newcomers;
  #nowMs = 0;

  constructor(options: SchedulerOptions) {
    const { numBlocks, blockSize, numHostBlocks, now } = options;
    this.#options = options;
    const onEviction = (block: number, tokens: number) => {
      if (tokens === 0) return;
      const when = { timeMs: this.#nowMs, stepId: this.numSteps + 1 };
      options.events.push({ kind: "evict", ...when, block, tokens });
    };
    this.kvCache = new KvCache({ numBlocks, blockSize, now, onEviction });
    const hostBlocks = new HostBlocks(numHostBlocks);
    this.residents = new Residents({ ...options, kvCache: this.kvCache, hostBlocks });
    this.#admission = new Admission(blockSize, options.estimate);
    this.#newcomers = new Newcomers(this.residents, this.kvCache, blockSize);
  }

  /**
   * The next step, its blocks taken and its rows counted as computed; undefined if nobody can have a row:
   * there is no work, or all of it waits for steps in flight.
   */
  schedule(): ScheduledStep | undefined {
    const { running, waiting } = this.residents;
    if (running.size + waiting.size === 0) return undefined;
    const { blockSize, budget, now } = this.#options;
    const id = this.numSteps + 1;
    this.#nowMs = now();
    this.kvCache.beginStep(id);
    const builder = new StepBuilder(blockSize);
    const { lostRows } = this.residents;
    this.#preemptForPriority();
    const numPreempted = this.#reserveRows();
    // Those who fork in this step have their first rows in the next: what they share is written in this one.
    const residents = [...running];
    this.#scheduleDecodes(builder, residents);
    const prompts = residents.filter((sequence) => numRowsWanted(sequence) > 1);
    const numDecodeRows = builder.numRows;
    // As if all were as deep in their prompts as the deepest: then what is shared fairly fits too.
    const depth = Math.max(0, ...prompts.map(({ numComputedTokens }) => numComputedTokens));
    const maxRows = numDecodeRows + budget.prefillRows(builder.load, depth);
    // Whoever was preempted for blocks must not come back at once, nor anybody in its stead.
    const newcomers = numPreempted === 0 ? this.#newcomers.inOrder(this.#options.waitingOrder) : [];
    this.#schedulePrompts(builder, maxRows, prompts, newcomers);
    this.#admitWaiting(builder, maxRows, numDecodeRows, newcomers);
    if (builder.numRows === 0) {
      this.residents.cancelSwapOuts(id);
      return undefined;
    }
    const lostMs = (this.residents.lostRows - lostRows) * budget.msPerRow;
    this.#admission.record(lostMs, budget.msOf(builder.load));
    this.numSteps = id;
    return builder.build(id, {
      hostReleases: this.residents.takeHostReleases(),
      swapOuts: this.residents.takeSwapOuts(),
      copies: this.kvCache.takeCopies(),
    });
  }

  /** Preempts all. `device`: what waits in host memory is void too. */
  preemptAll(reason: "caller" | "device"): void {
    const timeMs = this.#options.now();
    this.residents.preemptAll(reason, { timeMs, stepId: this.numSteps });
  }

  /**
   * The back end had no host memory for the swaps of a step, and failed it; `why` is its reason. Everyone
   * recomputes and no prefix is trusted, as after any failed step, but for what earlier steps swapped out.
   */
  stopSwapping(why: string): void {
    const when = { timeMs: this.#options.now(), stepId: this.numSteps };
    this.residents.stopSwapping(this.numCompletedSteps, when);
    this.kvCache.clear();
    this.#options.events.push({ kind: "swap-off", ...when, why });
  }

  /** What a sequence that does not get on lacks, for people. */
  lackOf(sequence: Sequence): string {
    if (isSeated(sequence)) return "it runs, and the back end has not answered";
    const { first } = this.residents.waiting;
    const { pool } = this.kvCache;
    const numFree = `${pool.numFree} of ${pool.numBlocks} KV blocks and ${this.residents.numFreeSlots} slots are free`;
    const needs = `it needs ${this.#blocksNeeded(sequence)} blocks and ${1 + numForksOf(sequence)} slots`;
    const behind =
      first === undefined || first === sequence
        ? ""
        : `; request ${first.requestId} goes before it`;
    return `${needs}; ${numFree}${behind}`;
  }

  /** Puts a running sequence, with its fellow beams, back to its place in the queue; its tokens are kept. */
  preempt(sequence: Sequence, reason: PreemptReason): void {
    this.residents.preempt(sequence, reason, { timeMs: this.#nowMs, stepId: this.numSteps + 1 });
  }

  /** A waiting sequence takes the place of running ones of lower priority that stand behind it. */
  #preemptForPriority(): void {
    const { running, waiting } = this.residents;
    const { first } = waiting;
    if (first === undefined || running.size === 0) return;
    // Whoever has aged past it would only come back at once.
    const isLower = (sequence: Sequence) =>
      sequence.priority > first.priority && comesBefore(first, sequence);
    const lower = [...running].filter(isLower);
    if (lower.length === 0) return;
    lower.sort((a, b) => b.priority - a.priority || (comesBefore(a, b) ? 1 : -1));
    const most = lower.reduce((sum, { blockTable }) => sum + blockTable.length, 0);
    const { pool } = this.kvCache;
    const staying = [...running].filter((sequence) => !isLower(sequence));
    const hasBlocks = (left: Iterable<Sequence>, numFree: number) =>
      this.#blocksNeeded(first) + this.#headroom(left) <= numFree;
    if (!hasBlocks(staying, pool.numFree + most)) return;
    const slots = lower.reduce((sum, { forks }) => sum + 1 + forks.length, 0);
    if (numForksOf(first) >= this.residents.numFreeSlots + slots) return;
    for (const victim of lower) {
      const hasSlots = numForksOf(first) < this.residents.numFreeSlots;
      if (hasSlots && hasBlocks(running, pool.numFree)) return;
      if (isSeated(victim)) this.preempt(victim, "priority");
    }
  }

  /** Free blocks that a waiting sequence takes when it is admitted. */
  #blocksNeeded(sequence: Sequence): number {
    return this.kvCache.blocksNeeded(sequence) + this.#tailBlocks(sequence);
  }

  /** Makes the next rows of all who run writable, whoever must be preempted for it. Returns how many were. */
  #reserveRows(): number {
    const { running, numPreemptions } = this.residents;
    for (const sequence of [...running]) {
      const numRows = numRowsWanted(sequence);
      while (numRows > 0 && isSeated(sequence) && !this.kvCache.reserve(sequence, numRows)) {
        this.preempt(chooseVictim(running, this.kvCache)!, "blocks");
      }
    }
    return this.residents.numPreemptions - numPreemptions;
  }

  /** A row for each sequence that lacks one token, and drafts in the places of those who could run besides. */
  #scheduleDecodes(builder: StepBuilder, residents: readonly Sequence[]): void {
    const decoding = residents.filter((sequence) => numRowsWanted(sequence) === 1);
    let numSpare = this.residents.numFreeSlots;
    for (const sequence of decoding) {
      const drafts = this.#drafts(sequence, numSpare, decoding.length);
      numSpare -= drafts.length;
      this.#addRows(sequence, 1, builder, drafts);
    }
  }

  #drafts(sequence: Sequence, numSpare: number, numRows: number): readonly number[] {
    const { drafter, maxTokens, numOutputTokens, forks } = sequence;
    const most = Math.min(numSpare, maxTokens - numOutputTokens - 1);
    // Those who fork from it share the row before the drafts.
    if (drafter === undefined || most <= 0 || forks.length > 0) return [];
    const drafts = drafter.propose(most, numRows, this.#options.budget);
    return this.kvCache.reserve(sequence, 1 + drafts.length) ? drafts : [];
  }

  /** Chunks of prompts that have begun, and of what is recomputed, in fair shares with the newcomers. */
  #schedulePrompts(
    builder: StepBuilder,
    maxRows: number,
    prompts: readonly Sequence[],
    newcomers: readonly Sequence[],
  ): void {
    if (prompts.length === 0) return;
    const all = [...prompts, ...this.#newcomers.likely(newcomers, this.#headroom())];
    const wants = all.map(({ numMissingTokens }) => numMissingTokens);
    const shares = fairShares(wants, maxRows - builder.numRows);
    for (const [i, sequence] of prompts.entries()) {
      this.#scheduleChunk(sequence, shares[i]!, builder);
    }
  }

  /** Blocks that an admission must leave free. */
  #headroom(running: Iterable<Sequence> = this.residents.running): number {
    return this.#admission.reserveBlocks(running);
  }

  /**
   * Admits waiting sequences until slots, rows or blocks run out. One that does not fit is passed over,
   * `MAX_SKIPS` times at most, never by a lower priority, which would be preempted for it, and not at all
   * if it was preempted itself. Never preempts.
   */
  #admitWaiting(
    builder: StepBuilder,
    maxRows: number,
    numDecodeRows: number,
    newcomers: readonly Sequence[],
  ): void {
    const { budget, maxLogits } = this.#options;
    // How deep in its prompt a newcomer begins, and so what its rows cost, is known when it is in.
    const rowsLeft = (depth: number) => {
      const numPromptRows = builder.numRows - numDecodeRows;
      const inTime = budget.prefillRows(builder.load, depth, numPromptRows);
      return Math.min(maxRows - builder.numRows, inTime);
    };
    const likely = this.#newcomers.likely(newcomers, this.#headroom());
    const wants = likely.map(({ numMissingTokens }) => numMissingTokens);
    const shares = fairShares(wants, maxRows - builder.numRows);
    const planned = new Map(likely.map((sequence, i) => [sequence, shares[i]!]));
    const starving = newcomers.filter(({ numSkips }) => numSkips >= MAX_SKIPS);
    const sharing = new Set<Sequence>();
    let numLikely = likely.length;
    let numFailed = 0;
    let lowestPriority = Number.POSITIVE_INFINITY;
    for (const sequence of newcomers) {
      if (sequence.priority > lowestPriority) continue;
      const numRows = rowsLeft(0);
      if (numRows === 0 || builder.numLogits === maxLogits) return;
      if (starving.some((other) => isPassedOver(other, sequence))) continue;
      if (this.#newcomers.waitsToShare(sequence)) {
        sharing.add(sequence);
        continue;
      }
      if (!this.#admit(sequence, builder)) {
        // Newcomers would overwrite what is left of it in the pool.
        if (sequence.isPaused) return;
        numFailed += 1;
        lowestPriority = Math.min(lowestPriority, sequence.priority);
        if (numFailed === LOOKAHEAD) return;
        continue;
      }
      for (const other of newcomers) {
        if (sharing.has(other) || !isPassedOver(other, sequence)) continue;
        other.numSkips += 1;
        if (other.numSkips === MAX_SKIPS) starving.push(other);
      }
      // More than its share if those before it did not need theirs.
      const share = Math.ceil(numRows / Math.max(1, numLikely));
      const most = Math.max(share, planned.get(sequence) ?? 0);
      this.#scheduleChunk(sequence, Math.min(most, rowsLeft(sequence.numComputedTokens)), builder);
      numLikely -= 1;
    }
  }

  /** Gives a waiting sequence slot and blocks, or changes nothing and returns false. */
  #admit(sequence: Sequence, builder: StepBuilder): boolean {
    const { residents, kvCache } = this;
    residents.trimForks(sequence);
    if (residents.numFreeSlots <= numForksOf(sequence)) return false;
    const headroom = this.#headroom();
    if (sequence.swapped === undefined) {
      if (!kvCache.admit(sequence, headroom + this.#tailBlocks(sequence))) return false;
    } else {
      // Its blocks are in host memory once the step that took them out has run.
      if (sequence.swapped.stepId > this.numCompletedSteps) return false;
      const swapIns = kvCache.swapIn(sequence, headroom);
      if (swapIns === undefined) return false;
      builder.addSwapIns(swapIns);
      this.#options.events.push({
        kind: "swap-in",
        timeMs: this.#nowMs,
        stepId: this.numSteps + 1,
        requestId: sequence.requestId,
        index: sequence.index,
        blocks: swapIns.length,
        tokens: sequence.numComputedTokens,
      });
    }
    residents.seat(sequence);
    const { times, numComputedTokens, numPromptTokens } = sequence;
    this.#options.metrics.recordScheduled(times, this.#nowMs);
    if (sequence.cachedTokens === undefined) {
      sequence.cachedTokens = numComputedTokens;
      this.#options.metrics.recordLookup(numPromptTokens, numComputedTokens);
    }
    return true;
  }

  /** Blocks that the beams which fork from a resumed one need for their own tails. */
  #tailBlocks({ beams, forks, forkAt }: Sequence): number {
    if (beams === undefined) return 0;
    const { blockSize } = this.#options;
    const shared = Math.floor(forkAt / blockSize);
    return forks.reduce((sum, { numTokens }) => sum + Math.ceil(numTokens / blockSize) - shared, 0);
  }

  /** The next rows of a sequence, at most `maxRows`, as far as logits are left. */
  #scheduleChunk(sequence: Sequence, maxRows: number, builder: StepBuilder): void {
    const { numComputedTokens, numTokens, forks, forkAt } = sequence;
    const numLogits = this.#options.maxLogits - builder.numLogits;
    let count = Math.min(sequence.numMissingTokens, maxRows);
    if (forks.length > 0) count = Math.min(count, forkAt - numComputedTokens);
    // From the first row that is needed on, every row's logits are: scores, then the samples of the last.
    const last = numTokens - 1;
    const first = sequence.lacksScores
      ? Math.max(sequence.firstNeededRow, numComputedTokens)
      : last;
    const numSamples = 1 + (forkAt === numTokens ? forks.length : 0);
    const isComplete = numComputedTokens + count === numTokens;
    if (isComplete && last - first + numSamples > numLogits) count -= 1;
    count = Math.min(count, first + numLogits - numComputedTokens);
    if (count <= 0 || !this.kvCache.reserve(sequence, count)) return;
    this.#addRows(sequence, count, builder);
  }

  /** The samples of a prompt that is computed now are all drawn from its last row; beams go their own ways. */
  #fork(parent: Sequence, builder: StepBuilder): void {
    const { forkAt } = parent;
    for (const fork of this.residents.fork(parent)) {
      fork.cachedTokens ??= parent.numPromptTokens;
      fork.lastProgressMs = this.#nowMs;
      this.#options.metrics.recordScheduled(fork.times, this.#nowMs);
      if (fork.numTokens > forkAt) continue;
      builder.addSample(fork, forkAt);
      this.#expectSample(fork);
    }
  }

  #addRows(
    sequence: Sequence,
    count: number,
    builder: StepBuilder,
    drafts: readonly number[] = [],
  ): void {
    builder.addRows(sequence, count, drafts);
    sequence.numComputedTokens += count + drafts.length;
    sequence.lastProgressMs = this.#nowMs;
    if (sequence.numMissingTokens <= 0) this.#expectSample(sequence);
    this.kvCache.cacheFullBlocks(sequence);
    const { forks, forkAt, numComputedTokens } = sequence;
    if (forks.length > 0 && numComputedTokens === forkAt) this.#fork(sequence, builder);
  }

  /** A token of the sequence is in flight. What follows needs its value only for beams and drafts. */
  #expectSample(sequence: Sequence): void {
    if (sequence.beams !== undefined || sequence.drafter !== undefined) {
      sequence.isHeld = true;
    } else {
      sequence.numPendingTokens += 1;
      sequence.lastTokenInSlot = true;
    }
  }
}

/** Rows that a running sequence can have now: 1 while decoding, what it lacks of a prompt, or 0. */
function numRowsWanted(sequence: Sequence): number {
  const { numMissingTokens, numPendingTokens, numOutputTokens, maxTokens, isHeld } = sequence;
  if (isHeld || numMissingTokens <= 0) return 0;
  // The sample in flight is its last.
  if (numPendingTokens > 0 && numOutputTokens >= maxTokens) return 0;
  return numMissingTokens;
}

/** Whether an admission of `sequence` overtakes `other`. */
function isPassedOver(other: Sequence, sequence: Sequence): boolean {
  return other.status === "waiting" && comesBefore(other, sequence);
}
