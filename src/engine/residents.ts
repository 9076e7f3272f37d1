import { invariant } from "../errors.ts";
import type { BeamGroup } from "./beamGroup.ts";
import type { BeamMove } from "./beamSearch.ts";
import type { EventLog } from "./eventLog.ts";
import type { HostBlocks } from "./hostBlocks.ts";
import type { KvCache } from "./kvCache.ts";
import type { EngineMetrics } from "./metrics.ts";
import { type FellowBeams, type FinishReason, NO_SLOT, type Sequence } from "./sequence.ts";
import { SequenceQueue } from "./sequenceQueue.ts";
import { Slots } from "./slots.ts";
import type { BlockSwap } from "./step.ts";
import type { StepBudget } from "./stepBudget.ts";
import type { SwapPolicy } from "./swapPolicy.ts";
import { WaitingQueue } from "./waitingQueue.ts";

/** Why a sequence lost its place in the pool. */
export type PreemptReason = "blocks" | "priority" | "caller" | "device";

export interface ResidentsOptions {
  readonly kvCache: KvCache;
  readonly hostBlocks: HostBlocks;
  /** Most sequences that run at once. */
  readonly numSlots: number;
  readonly budget: StepBudget;
  readonly swapPolicy: SwapPolicy;
  readonly events: EventLog;
  readonly metrics: EngineMetrics;
}

/** Who sits in a slot and holds blocks, who waits for it, and how one becomes the other. */
export class Residents {
  readonly running = new SequenceQueue();
  readonly waiting = new WaitingQueue<Sequence>();
  numPreemptions = 0;
  numSwaps = 0;
  /** Computed tokens that preemptions threw away. */
  numTokensLost = 0;
  /** The cost of all preemptions, in rows. */
  lostRows = 0;

  readonly #kvCache: KvCache;
  readonly #hostBlocks: HostBlocks;
  readonly #slots: Slots;
  readonly #budget: StepBudget;
  readonly #swapPolicy: SwapPolicy;
  readonly #events: EventLog;
  readonly #metrics: EngineMetrics;
  /** Of sequences preempted since they were last taken. */
  #swapOuts: BlockSwap[] = [];
  readonly #swapped = new Set<Sequence>();
  readonly #paused = new Set<Sequence>();

  constructor(options: ResidentsOptions) {
    this.#kvCache = options.kvCache;
    this.#hostBlocks = options.hostBlocks;
    this.#slots = new Slots(options.numSlots);
    this.#budget = options.budget;
    this.#swapPolicy = options.swapPolicy;
    this.#events = options.events;
    this.#metrics = options.metrics;
  }

  /** Waiting sequences whose K and V are in host memory. */
  get numSwapped(): number {
    return this.#swapped.size;
  }

  /** Waiting sequences that were preempted. */
  get paused(): ReadonlySet<Sequence> {
    return this.#paused;
  }

  /** Free slots that are promised to nobody. */
  get numFreeSlots(): number {
    return this.#slots.numFree;
  }

  get numSlots(): number {
    return this.#slots.numSlots;
  }

  /** Seats a waiting sequence that has its blocks, and keeps slots for those who will fork from it. */
  seat(sequence: Sequence): void {
    this.waiting.remove(sequence);
    this.#swapped.delete(sequence);
    this.#paused.delete(sequence);
    sequence.isPaused = false;
    this.#enterSlot(sequence);
    this.#slots.reserve(numForksOf(sequence));
  }

  /** Lets those go that cannot all be seated beside `sequence`: they wait as sequences of their own. */
  trimForks(sequence: Sequence): void {
    const extra = sequence.forks.slice(this.#slots.numSlots - 1);
    if (sequence.beams !== undefined || extra.length === 0) return;
    sequence.setForks(sequence.forks.slice(0, this.#slots.numSlots - 1), sequence.forkAt);
    for (const fork of extra) this.#release(fork);
  }

  /** Seats those who start from the blocks of `parent`. */
  fork(parent: Sequence): readonly Sequence[] {
    const { forks } = parent;
    parent.setForks([], 0);
    this.#slots.reserve(-forks.length);
    for (const fork of forks) {
      fork.forksFrom = undefined;
      this.#kvCache.fork(parent, fork);
      this.#enterSlot(fork);
    }
    return forks;
  }

  /** Lets beams go on after their moves: copies share their parents' blocks and take the dropped ones' slots. */
  moveBeams(group: BeamGroup, moves: readonly BeamMove[]): void {
    const { copies, dropped } = group.move(moves);
    for (const { parent, child } of copies) this.#kvCache.fork(parent, child);
    for (const beam of dropped) {
      this.#leaveSlot(beam);
      beam.status = "finished";
    }
    this.#slots.reserve(dropped.length - copies.length);
    for (const { child } of copies) this.#enterSlot(child);
  }

  /** Puts a running sequence, with its fellow beams, back to its place in the queue; its tokens are kept. */
  preempt(
    sequence: Sequence,
    reason: PreemptReason,
    when: { readonly timeMs: number; readonly stepId: number },
  ): void {
    const { pool } = this.#kvCache;
    const kvUsageBefore = pool.numUsed / pool.numBlocks;
    const members = sequence.beams?.live.filter(isSeated) ?? [sequence];
    let tokensLost = 0;
    let blocksFreed = 0;
    for (const member of members) {
      tokensLost += this.#kvCache.recomputeTokens(member);
      blocksFreed += this.#kvCache.exclusiveBlocks(member);
    }
    const swapRows = this.#swapPolicy.costInRows(blocksFreed, this.#budget.msPerRow);
    const isSwapped = swapRows < tokensLost && this.#swapOut(sequence, reason);
    this.#leave(members);
    for (const member of members) member.status = "waiting";
    const paused = sequence.beams?.joinForResume() ?? sequence;
    paused.isPaused = true;
    this.#paused.add(paused);
    this.waiting.push(paused);
    sequence.beams?.reset();
    this.numPreemptions += 1;
    this.#metrics.recordPreemption();
    if (isSwapped) {
      this.numSwaps += 1;
      this.#metrics.recordSwap();
    } else {
      this.numTokensLost += tokensLost;
      this.#swapPolicy.forget();
    }
    this.lostRows += isSwapped ? swapRows : tokensLost;
    this.#events.push({
      kind: "preempt",
      ...when,
      requestId: sequence.requestId,
      index: sequence.index,
      reason,
      how: isSwapped ? "swap" : "recompute",
      tokensLost: isSwapped ? 0 : tokensLost,
      blocksFreed,
      kvUsageBefore,
      kvUsageAfter: pool.numUsed / pool.numBlocks,
    });
  }

  /** Preempts all. `device`: what waits in host memory is void too. */
  preemptAll(
    reason: "caller" | "device",
    when: { readonly timeMs: number; readonly stepId: number },
  ): void {
    while (this.running.last !== undefined) this.preempt(this.running.last, reason, when);
    if (reason === "device") this.#voidSwapOuts(0);
  }

  /**
   * A step failed for want of host memory: preempts all, and swaps nobody out from now on. What went to
   * the host up to step `lastStepId` stays usable.
   */
  stopSwapping(
    lastStepId: number,
    when: { readonly timeMs: number; readonly stepId: number },
  ): void {
    this.#hostBlocks.close();
    while (this.running.last !== undefined) this.preempt(this.running.last, "device", when);
    this.#voidSwapOuts(lastStepId + 1);
  }

  /** Ends an unfinished sequence that is no beam; safe while a step with it is in flight. */
  finish(sequence: Sequence, reason: FinishReason): void {
    this.#end([sequence], reason);
    for (const fork of sequence.forks) this.#release(fork);
    sequence.setForks([], 0);
    const parent = sequence.forksFrom;
    if (parent === undefined) return;
    sequence.forksFrom = undefined;
    parent.setForks(
      parent.forks.filter((fork) => fork !== sequence),
      parent.forkAt,
    );
    if (isSeated(parent)) this.#slots.reserve(-1);
  }

  /** Ends all beams of a search. */
  finishBeams(group: BeamGroup, reason: FinishReason): void {
    this.#end(group.live, reason);
    group.live.length = 0;
  }

  /** Blocks on their way to host memory since this was last asked. */
  takeSwapOuts(): readonly BlockSwap[] {
    const swapOuts = this.#swapOuts;
    this.#swapOuts = [];
    return swapOuts;
  }

  /** Host blocks that nobody will swap in any more, since this was last asked. */
  takeHostReleases(): readonly number[] {
    return this.#hostBlocks.takeReleased();
  }

  /**
   * There is no step `stepId` to carry these blocks, and perhaps never one while they are waited for: what
   * is in them is computed again, as far as the prefix cache does not have it still.
   */
  cancelSwapOuts(stepId: number): void {
    if (this.#swapOuts.length > 0) this.#voidSwapOuts(stepId);
  }

  /** Throws `internal` if queues, slots and blocks contradict each other. O(everything). */
  checkIntegrity(): void {
    const slots: number[] = [];
    const groups = new Set<FellowBeams>();
    let numReserved = 0;
    for (const sequence of this.running) {
      const name = `Sequence ${sequence.index} of request ${sequence.requestId}`;
      invariant(sequence.status === "running" && isSeated(sequence), `${name} is misplaced.`);
      slots.push(sequence.slot);
      if (sequence.beams === undefined) numReserved += sequence.forks.length;
      else groups.add(sequence.beams);
    }
    for (const { search, live } of groups) {
      numReserved += search.width - live.filter(isSeated).length;
    }
    for (const sequence of this.waiting.inOrder()) {
      const name = `Sequence ${sequence.index} of request ${sequence.requestId}`;
      const isRight = sequence.status === "waiting" && !isSeated(sequence);
      invariant(isRight && sequence.blockTable.length === 0, `${name} waits but holds a place.`);
    }
    this.waiting.checkIntegrity();
    this.#slots.checkIntegrity(slots, numReserved);
    this.#hostBlocks.checkIntegrity(this.waiting.inOrder());
    this.#kvCache.checkIntegrity(this.running);
  }

  /** True if the victim's blocks go to host memory; else they are computed again. */
  #swapOut(sequence: Sequence, reason: PreemptReason): boolean {
    const { beams, forks } = sequence;
    if (reason === "caller" || reason === "device") return false;
    if (beams !== undefined || forks.length > 0) return false;
    const swaps = this.#kvCache.swapOut(sequence, this.#hostBlocks);
    if (swaps === undefined) return false;
    this.#swapOuts.push(...swaps);
    this.#swapped.add(sequence);
    return true;
  }

  /** What steps from `stepId` on were to bring to the host is not there: it is computed again. */
  #voidSwapOuts(stepId: number): void {
    this.#swapOuts = [];
    for (const sequence of this.#swapped) {
      if (sequence.swapped!.stepId < stepId) continue;
      this.#kvCache.dropSwapped(sequence);
      this.#swapped.delete(sequence);
    }
  }

  #end(sequences: readonly Sequence[], reason: FinishReason): void {
    this.#leave(sequences.filter(isSeated));
    for (const sequence of sequences) {
      if (this.waiting.has(sequence)) this.waiting.remove(sequence);
      this.#kvCache.dropSwapped(sequence);
      this.#swapped.delete(sequence);
      this.#paused.delete(sequence);
      sequence.status = "finished";
      sequence.finishReason = reason;
    }
  }

  /** Unseats one sequence, or all seated beams of a search. */
  #leave(members: readonly Sequence[]): void {
    const [first] = members;
    if (first === undefined) return;
    const { beams, forks } = first;
    for (const member of members) this.#leaveSlot(member);
    this.#slots.reserve(beams === undefined ? -forks.length : members.length - beams.search.width);
  }

  #enterSlot(sequence: Sequence): void {
    this.running.pushBack(sequence);
    sequence.status = "running";
    sequence.slot = this.#slots.take();
    sequence.isFresh = true;
  }

  #leaveSlot(sequence: Sequence): void {
    this.running.remove(sequence);
    this.#kvCache.release(sequence);
    this.#slots.release(sequence.slot);
    sequence.slot = NO_SLOT;
    sequence.epoch += 1;
    sequence.numPendingTokens = 0;
    sequence.isHeld = false;
    sequence.lastTokenInSlot = false;
  }

  /** Somebody who was to fork waits on its own instead. */
  #release(fork: Sequence): void {
    fork.forksFrom = undefined;
    this.waiting.push(fork);
  }
}

/** True while the sequence is resident in the back end. */
export function isSeated(sequence: Sequence): boolean {
  return sequence.slot !== NO_SLOT;
}

/** Slots that will be needed besides the sequence's own. */
export function numForksOf({ beams, forks }: Sequence): number {
  return beams === undefined ? forks.length : beams.search.width - 1;
}
