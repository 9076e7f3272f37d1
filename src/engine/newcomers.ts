import type { KvCache } from "./kvCache.ts";
import { numForksOf, type Residents } from "./residents.ts";
import type { Sequence } from "./sequence.ts";

/** Waiting sequences that are tried in vain in a step: its cost must not grow with the queue. */
export const LOOKAHEAD = 16;

/** Which waiting sequence goes first: in order of the queue, or whose prompt is cached longest. */
export type WaitingOrder = "fcfs" | "longest-prefix";

/** Who of the waiting may come in, and in which order they are asked. */
export class Newcomers {
  readonly #residents: Residents;
  readonly #kvCache: KvCache;
  readonly #blockSize: number;

  constructor(residents: Residents, kvCache: KvCache, blockSize: number) {
    this.#residents = residents;
    this.#kvCache = kvCache;
    this.#blockSize = blockSize;
  }

  /** As many of the waiting as a step could admit, and some that do not fit, in the order in which they are tried. */
  inOrder(order: WaitingOrder): readonly Sequence[] {
    const { waiting, numFreeSlots } = this.#residents;
    const candidates: Sequence[] = [];
    if (numFreeSlots === 0 || this.#kvCache.pool.numFree === 0) return candidates;
    for (const sequence of waiting.inOrder()) {
      candidates.push(sequence);
      if (candidates.length === numFreeSlots + LOOKAHEAD) break;
    }
    if (order === "fcfs") return candidates;
    const cached = new Map(candidates.map((one) => [one, this.#kvCache.cachedTokens(one)]));
    return candidates.sort((a, b) => a.priority - b.priority || cached.get(b)! - cached.get(a)!);
  }

  /** Those of them that slots and blocks but for `headroom` suffice for, at a glance, and that need not wait. */
  likely(newcomers: readonly Sequence[], headroom: number): readonly Sequence[] {
    let numSlots = this.#residents.numFreeSlots;
    let numBlocks = this.#kvCache.pool.numFree - headroom;
    const prompts = this.#promptsUnderWay();
    const likely: Sequence[] = [];
    for (const sequence of newcomers) {
      if (this.#kvCache.isComputedBy([...prompts, ...likely], sequence)) continue;
      const slots = Math.min(1 + numForksOf(sequence), this.#residents.numSlots);
      const blocks = Math.ceil(sequence.numTokens / this.#blockSize);
      if (slots <= numSlots && blocks <= numBlocks) {
        numSlots -= slots;
        numBlocks -= blocks;
        likely.push(sequence);
      } else if (sequence.isPaused) break;
    }
    return likely;
  }

  /** True if what the sequence would compute first is being computed already: it waits to share it. */
  waitsToShare(sequence: Sequence): boolean {
    return this.#kvCache.isComputedBy(this.#promptsUnderWay(), sequence);
  }

  #promptsUnderWay(): readonly Sequence[] {
    return [...this.#residents.running].filter(({ numMissingTokens }) => numMissingTokens > 1);
  }
}
