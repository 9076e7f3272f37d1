import { invariant } from "../errors.ts";
import { FreeLists } from "./freeLists.ts";

/**
 * What a free block's content is worth: blocks of a lower rank are reused first. Nothing; a prefix that
 * is not expected again; a prefix; a prefix that somebody asked to keep.
 */
export const BLOCK_RANK = { empty: 0, superseded: 1, cached: 2, kept: 3 } as const;

export type BlockRank = (typeof BLOCK_RANK)[keyof typeof BLOCK_RANK];

const NUM_RANKS = 4;

/** What the pool asks about the content of its blocks; `PrefixCache` answers. */
export interface BlockContents {
  rank(block: number): BlockRank;
  /** Nobody holds the block any more; it is about to be listed as free. */
  letGo(block: number): void;
  /** Forgets the block's prefix, because the block is about to be overwritten. */
  evict(block: number): void;
}

/**
 * Physical KV blocks of one pool: who holds them and in which order the free ones are reused.
 *
 * There is a free list for each rank. Blocks without content go to the head of theirs and are overwritten
 * first, the newest before the others; blocks with content go to the tail of theirs and keep it until
 * their turn comes (lazy eviction, LRU), kept ones last of all. Every operation costs O(1) a block and
 * allocates nothing.
 */
export class BlockPool {
  readonly numBlocks: number;
  readonly #contents: BlockContents;
  readonly #refCounts: Int32Array; // [numBlocks]
  readonly #free: FreeLists;
  #peakUsed = 0;

  constructor(numBlocks: number, contents: BlockContents) {
    this.numBlocks = numBlocks;
    this.#contents = contents;
    this.#refCounts = new Int32Array(numBlocks);
    this.#free = new FreeLists(numBlocks, NUM_RANKS);
  }

  /** Blocks that nobody holds, those with a cached or kept prefix included. */
  get numFree(): number {
    return this.#free.total;
  }

  /** Free blocks whose prefix is kept. */
  get numKept(): number {
    return this.#free.size(BLOCK_RANK.kept);
  }

  /** Blocks that somebody holds. */
  get numUsed(): number {
    return this.numBlocks - this.#free.total;
  }

  /** Largest `numUsed` that was noted. */
  get peakUsed(): number {
    return this.#peakUsed;
  }

  refCount(block: number): number {
    return this.#refCounts[block]!;
  }

  /** Appends `count` blocks to `table`, held once each, or does nothing and returns false. */
  allocate(count: number, table: number[]): boolean {
    if (count > this.#free.total) return false;
    for (let i = 0; i < count; i++) table.push(this.take());
    return true;
  }

  /** One block, held once. There must be a free one. */
  take(): number {
    const block = this.#free.first();
    this.#free.remove(block);
    if (this.#contents.rank(block) !== BLOCK_RANK.empty) this.#contents.evict(block);
    this.#refCounts[block] = 1;
    return block;
  }

  /** Holds a block once more; a free one leaves its free list with its content intact. */
  retain(block: number): void {
    if (this.#refCounts[block] === 0) this.#free.remove(block);
    this.#refCounts[block]! += 1;
  }

  /**
   * Lets go of a block once. Tables are released last block first: of a cached chain the tail is then
   * evicted before the head, and what is left is always a usable prefix.
   */
  release(block: number): void {
    const refCount = this.#refCounts[block]!;
    invariant(refCount > 0, `KV block ${block} is released but nobody holds it.`);
    this.#refCounts[block] = refCount - 1;
    if (refCount > 1) return;
    this.#contents.letGo(block);
    this.#list(block);
  }

  /** The rank of a block has changed, or its content was of use: if free, it is listed anew, as just released. */
  relist(block: number): void {
    if (this.#refCounts[block]! > 0) return;
    this.#free.remove(block);
    this.#list(block);
  }

  /** All content is gone and nobody holds a block: the free list is as at first. */
  reset(): void {
    invariant(this.numUsed === 0, "The KV block pool is reset while blocks are held.");
    this.#free.reset();
  }

  /** A step is complete: the blocks that are held now are in use while it runs. */
  notePeak(): void {
    this.#peakUsed = Math.max(this.#peakUsed, this.numUsed);
  }

  /** Free blocks in the order in which they will be reused. O(numFree): for tests and views. */
  freeBlocks(): number[] {
    return this.#free.blocks();
  }

  /** Throws `internal` unless the lists and the counts agree with `holders`, holds per block. */
  checkIntegrity(holders: Int32Array): void {
    this.#free.checkIntegrity();
    let referenced = 0;
    for (let block = 0; block < this.numBlocks; block++) {
      const refCount = this.#refCounts[block]!;
      invariant(
        refCount === holders[block],
        `KV block ${block} is counted ${refCount} times but held ${holders[block]} times.`,
      );
      const isFree = this.#free.has(block);
      invariant(
        isFree === (refCount === 0),
        `KV block ${block} is both held and free, or neither.`,
      );
      if (refCount > 0) referenced += 1;
    }
    const free = this.#free.total;
    invariant(
      free + referenced === this.numBlocks,
      `${free} free and ${referenced} referenced KV blocks do not add up to ${this.numBlocks}.`,
    );
    let before = 0;
    for (const block of this.freeBlocks()) {
      const rank = this.#contents.rank(block);
      invariant(rank >= before, `KV block ${block} is in the free list of another rank.`);
      before = rank;
    }
  }

  #list(block: number): void {
    const rank = this.#contents.rank(block);
    if (rank === BLOCK_RANK.empty) this.#free.pushFront(rank, block);
    else this.#free.pushBack(rank, block);
  }
}
