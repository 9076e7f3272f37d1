import type { BlockPool } from "./blockPool.ts";
import type { PartialHit, PrefixCache } from "./prefixCache.ts";
import type { PrefixNode } from "./prefixNode.ts";
import type { Sequence } from "./sequence.ts";

export interface PrefixHitsOptions {
  readonly prefixes: PrefixCache;
  readonly pool: BlockPool;
  readonly blockSize: number;
}

/**
 * What waiting sequences would find in the prefix cache, and what they would need besides. They ask in
 * every step, so an answer costs what has changed since the last one and not the length of their prompts:
 * whoever holds a block of a chain holds all before it, so that both the cached and the held blocks that
 * a sequence begins with are known by where they end.
 */
export class PrefixHits {
  readonly #prefixes: PrefixCache;
  readonly #pool: BlockPool;
  readonly #blockSize: number;

  constructor(options: PrefixHitsOptions) {
    this.#prefixes = options.prefixes;
    this.#pool = options.pool;
    this.#blockSize = options.blockSize;
  }

  /** The cached blocks that the sequence begins with, as far as it may use them. O(their number). */
  find(sequence: Sequence): readonly PrefixNode[] {
    return this.#prefixes.find(sequence, this.#most(sequence));
  }

  /** The block after those that has the longest beginning in common with what follows. */
  findPartial(sequence: Sequence): PartialHit | undefined {
    const { node, count } = this.#prefixes.seek(sequence, this.#most(sequence));
    const start = count * this.#blockSize;
    const end = Math.min(start + this.#blockSize, sequence.firstNeededRow);
    return this.#prefixes.findPartial(node, sequence, start, end);
  }

  /** Free blocks that it takes to give the sequence all its blocks; hits that nobody holds are among them. */
  blocksNeeded(sequence: Sequence): number {
    return Math.ceil(sequence.numTokens / this.#blockSize) - this.#numHeld(sequence);
  }

  /** Length of the prefix that the sequence would find cached now. */
  cachedTokens(sequence: Sequence): number {
    const { count } = this.#prefixes.seek(sequence, this.#most(sequence));
    return count * this.#blockSize + (this.findPartial(sequence)?.numTokens ?? 0);
  }

  /** Those of them that lie in blocks which nobody holds. */
  freeTokens(sequence: Sequence): number {
    const { count } = this.#prefixes.seek(sequence, this.#most(sequence));
    const partial = this.findPartial(sequence);
    const isFree = partial !== undefined && this.#pool.refCount(partial.block) === 0;
    const numFull = count - this.#numHeld(sequence);
    return numFull * this.#blockSize + (isFree ? partial.numTokens : 0);
  }

  /** True if one of `others` is about to compute the block that the sequence would compute first. */
  isComputedBy(others: readonly Sequence[], sequence: Sequence): boolean {
    return others.length > 0 && this.#prefixes.isDue(sequence, this.#most(sequence), others);
  }

  /**
   * Most full blocks of others that it may begin with: logits that are wanted come from computed rows only,
   * the last token's, and the prompt's for its scores.
   */
  #most({ firstNeededRow }: Sequence): number {
    return Math.floor(firstNeededRow / this.#blockSize);
  }

  #numHeld(sequence: Sequence): number {
    const isHeld = ({ blocks: [block] }: PrefixNode) =>
      block !== undefined && this.#pool.refCount(block) > 0;
    const { lastHeld } = sequence;
    const place = this.#prefixes.seekWhere(sequence, this.#most(sequence), lastHeld, isHeld);
    sequence.lastHeld = place;
    return place.count;
  }
}
