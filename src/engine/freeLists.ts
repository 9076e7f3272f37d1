import { invariant } from "../errors.ts";

const NOT_LISTED = -1;

/**
 * Several doubly linked lists over the same numbers, each number in at most one of them. The links are
 * arrays made once: every operation is O(1) and allocates nothing.
 */
export class FreeLists {
  readonly #numBlocks: number;
  readonly #numLists: number;
  // [numBlocks + numLists]: the extra entries are the lists' anchors, so that no end is a special case.
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #listOf: Int8Array; // [numBlocks]
  readonly #sizes: Int32Array; // [numLists]
  #total = 0;

  /** List 0 holds all blocks in the order of their ids, the others are empty. */
  constructor(numBlocks: number, numLists: number) {
    this.#numBlocks = numBlocks;
    this.#numLists = numLists;
    this.#next = new Int32Array(numBlocks + numLists);
    this.#previous = new Int32Array(numBlocks + numLists);
    this.#listOf = new Int8Array(numBlocks);
    this.#sizes = new Int32Array(numLists);
    this.reset();
  }

  /** Blocks in all lists. */
  get total(): number {
    return this.#total;
  }

  size(list: number): number {
    return this.#sizes[list]!;
  }

  has(block: number): boolean {
    return this.#listOf[block] !== NOT_LISTED;
  }

  /** The first block of the first list that has one. */
  first(): number {
    for (let list = 0; list < this.#numLists; list++) {
      if (this.#sizes[list]! > 0) return this.#next[this.#numBlocks + list]!;
    }
    invariant(false, "A KV block is taken but none is free.");
  }

  pushFront(list: number, block: number): void {
    this.#linkAfter(this.#numBlocks + list, block, list);
  }

  pushBack(list: number, block: number): void {
    this.#linkAfter(this.#previous[this.#numBlocks + list]!, block, list);
  }

  remove(block: number): void {
    const before = this.#previous[block]!;
    const after = this.#next[block]!;
    this.#next[before] = after;
    this.#previous[after] = before;
    this.#sizes[this.#listOf[block]!]! -= 1;
    this.#listOf[block] = NOT_LISTED;
    this.#total -= 1;
  }

  /** As after construction. */
  reset(): void {
    for (let list = 0; list < this.#numLists; list++) {
      const anchor = this.#numBlocks + list;
      this.#next[anchor] = anchor;
      this.#previous[anchor] = anchor;
    }
    this.#sizes.fill(0);
    this.#listOf.fill(NOT_LISTED);
    this.#total = 0;
    for (let block = 0; block < this.#numBlocks; block++) this.pushBack(0, block);
  }

  /** Blocks of all lists, one list after the other. O(total): for tests and views. */
  blocks(): number[] {
    const blocks: number[] = [];
    for (let list = 0; list < this.#numLists; list++) {
      const anchor = this.#numBlocks + list;
      let block = this.#next[anchor]!;
      while (block !== anchor && blocks.length <= this.#numBlocks) {
        blocks.push(block);
        block = this.#next[block]!;
      }
    }
    return blocks;
  }

  /** Throws `internal` unless links, sizes and marks agree. */
  checkIntegrity(): void {
    for (let list = 0; list < this.#numLists; list++) {
      const anchor = this.#numBlocks + list;
      let size = 0;
      for (let block = this.#next[anchor]!; block !== anchor; block = this.#next[block]!) {
        const linked = this.#next[this.#previous[block]!] === block;
        const marked = this.#listOf[block] === list;
        invariant(linked && marked, `Free list ${list} is broken at KV block ${block}.`);
        size += 1;
        invariant(size <= this.#numBlocks, `Free list ${list} has no end.`);
      }
      const counted = this.#sizes[list];
      invariant(
        size === counted,
        `Free list ${list} has ${size} KV blocks, its count says ${counted}.`,
      );
    }
    const total = this.#sizes.reduce((sum, size) => sum + size, 0);
    const marked = this.#listOf.reduce((sum, list) => sum + (list === NOT_LISTED ? 0 : 1), 0);
    invariant(
      total === this.#total && marked === this.#total,
      `The free lists have ${total} KV blocks, ${marked} are marked, the count says ${this.#total}.`,
    );
  }

  #linkAfter(before: number, block: number, list: number): void {
    const after = this.#next[before]!;
    this.#next[before] = block;
    this.#previous[block] = before;
    this.#next[block] = after;
    this.#previous[after] = block;
    this.#listOf[block] = list;
    this.#sizes[list]! += 1;
    this.#total += 1;
  }
}
