import { invariant } from "../errors.ts";

/** What the pool asks about the content of its blocks; `PrefixCache` answers. */
export interface CachedBlocks {
  /** True if the block holds a prefix that a later sequence may reuse. */
  has(block: number): boolean;
  /** Forgets the block's prefix, because the block is about to be overwritten. */
  evict(block: number): void;
}

const NOT_LISTED = -1;

/**
 * Physical KV blocks of one pool: who holds them and in which order the free ones are reused.
 *
 * Free blocks form an intrusive doubly linked list, so that taking any block out of it costs O(1) and
 * allocates nothing. Blocks without reusable content go to its head and are overwritten first; blocks
 * that hold a cached prefix go to its tail and keep it until their turn comes (lazy eviction, LRU).
 */
export class BlockPool {
  readonly numBlocks: number;
  readonly #cached: CachedBlocks;
  readonly #refCounts: Int32Array; // [numBlocks]
  // [numBlocks + 1]: the extra entry is the list's anchor, so that no end is a special case.
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #anchor: number;
  #numFree: number;
  #peakUsed = 0;

  constructor(numBlocks: number, cached: CachedBlocks) {
    this.numBlocks = numBlocks;
    this.#cached = cached;
    this.#refCounts = new Int32Array(numBlocks);
    this.#anchor = numBlocks;
    this.#numFree = numBlocks;
    this.#next = Int32Array.from({ length: numBlocks + 1 }, (_, i) => (i + 1) % (numBlocks + 1));
    this.#previous = Int32Array.from({ length: numBlocks + 1 }, (_, i) => (i || numBlocks + 1) - 1);
  }

  /** Blocks that no sequence holds, those with a cached prefix included. */
  get numFree(): number {
    return this.#numFree;
  }

  /** Blocks that at least one sequence holds. */
  get numUsed(): number {
    return this.numBlocks - this.#numFree;
  }

  /** Largest `numUsed` so far. */
  get peakUsed(): number {
    return this.#peakUsed;
  }

  refCount(block: number): number {
    return this.#refCounts[block]!;
  }

  /** Appends `count` blocks to `table`, held once each, or does nothing and returns false. */
  allocate(count: number, table: number[]): boolean {
    if (count > this.#numFree) return false;
    for (let i = 0; i < count; i++) {
      const block = this.#next[this.#anchor]!;
      this.#unlink(block);
      if (this.#cached.has(block)) this.#cached.evict(block);
      this.#refCounts[block] = 1;
      table.push(block);
    }
    this.#notePeak();
    return true;
  }

  /** Holds a block once more; a free one leaves the free list with its content intact. */
  retain(block: number): void {
    if (this.#refCounts[block] === 0) this.#unlink(block);
    this.#refCounts[block]! += 1;
    this.#notePeak();
  }

  /**
   * Lets go of a sequence's whole table, last block first: of a cached chain the tail is then evicted
   * before the head, and what is left is always a usable prefix.
   */
  release(table: readonly number[]): void {
    for (let i = table.length - 1; i >= 0; i--) {
      const block = table[i]!;
      invariant(this.#refCounts[block]! > 0, `KV block ${block} is released but nobody holds it.`);
      this.#refCounts[block]! -= 1;
      if (this.#refCounts[block] === 0) {
        if (this.#cached.has(block)) this.#linkAfter(this.#previous[this.#anchor]!, block);
        else this.#linkAfter(this.#anchor, block);
      }
    }
  }

  /** Free blocks in the order in which they will be reused. O(numFree): for tests and views. */
  freeBlocks(): number[] {
    const blocks: number[] = [];
    let block = this.#next[this.#anchor]!;
    while (block !== this.#anchor && blocks.length <= this.numBlocks) {
      blocks.push(block);
      block = this.#next[block]!;
    }
    return blocks;
  }

  /** Throws `internal` unless the list and the counts agree with `holders`, tables per block. */
  checkIntegrity(holders: Int32Array): void {
    const free = this.freeBlocks();
    invariant(
      free.length === this.#numFree,
      `The free list has ${free.length} KV blocks, its count says ${this.#numFree}.`,
    );
    let referenced = 0;
    for (let block = 0; block < this.numBlocks; block++) {
      const refCount = this.#refCounts[block]!;
      invariant(
        refCount === holders[block],
        `KV block ${block} is counted ${refCount} times but ${holders[block]} block tables hold it.`,
      );
      const listed = this.#next[block] !== NOT_LISTED;
      invariant(
        listed === (refCount === 0),
        `KV block ${block} is both held and free, or neither.`,
      );
      if (refCount > 0) referenced += 1;
    }
    invariant(
      free.length + referenced === this.numBlocks,
      `${free.length} free and ${referenced} referenced KV blocks do not add up to ${this.numBlocks}.`,
    );
    for (const block of free) {
      const after = this.#next[block]!;
      invariant(
        this.#previous[after] === block,
        `The free list is broken after KV block ${block}.`,
      );
    }
  }

  #unlink(block: number): void {
    const before = this.#previous[block]!;
    const after = this.#next[block]!;
    this.#next[before] = after;
    this.#previous[after] = before;
    this.#next[block] = NOT_LISTED;
    this.#previous[block] = NOT_LISTED;
    this.#numFree -= 1;
  }

  #linkAfter(before: number, block: number): void {
    const after = this.#next[before]!;
    this.#next[before] = block;
    this.#previous[block] = before;
    this.#next[block] = after;
    this.#previous[after] = block;
    this.#numFree += 1;
  }

  #notePeak(): void {
    if (this.numUsed > this.#peakUsed) this.#peakUsed = this.numUsed;
  }
}
