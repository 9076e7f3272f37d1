import { invariant } from "../errors.ts";
import { BlockPool } from "./blockPool.ts";
import { PrefixCache, type TokenHash } from "./prefixCache.ts";
import type { Sequence } from "./sequence.ts";

/** The KV pool as sequences see it: their block tables, and the prefixes that they can share. */
export class KvCache {
  readonly #blockSize: number;
  readonly #prefixes: PrefixCache;
  readonly #pool: BlockPool;

  constructor(numBlocks: number, blockSize: number, hash?: TokenHash) {
    this.#blockSize = blockSize;
    this.#prefixes = new PrefixCache(numBlocks, blockSize, hash);
    this.#pool = new BlockPool(numBlocks, this.#prefixes);
  }

  get pool(): BlockPool {
    return this.#pool;
  }

  get numCachedBlocks(): number {
    return this.#prefixes.numBlocks;
  }

  /**
   * Gives a waiting sequence blocks for all its tokens, cached ones first, or changes nothing and
   * returns false. Blocks of a long prompt are taken at once although it is computed in chunks: a
   * prompt that has begun never lacks blocks for its next chunk.
   */
  admit(sequence: Sequence): boolean {
    const numBlocks = Math.ceil(sequence.numTokens / this.#blockSize);
    // Logits that are wanted come from computed rows only: the last token's, and the prompt's for its scores.
    const maxHits = Math.floor(sequence.firstNeededRow / this.#blockSize);
    if (this.#pool.numFree === 0) return false; // at least one block is always new
    const hits = this.#prefixes.find(sequence.tokens, maxHits);
    const numNew = numBlocks - hits.length;
    let numRevived = 0;
    for (const { blocks } of hits) if (this.#pool.refCount(blocks[0]!) === 0) numRevived += 1;
    if (numNew + numRevived > this.#pool.numFree) return false;

    // Hits are held before anything is allocated, so that no allocation evicts them.
    for (const { blocks } of hits) {
      this.#pool.retain(blocks[0]!);
      sequence.blockTable.push(blocks[0]!);
    }
    this.#pool.allocate(numNew, sequence.blockTable);
    sequence.numComputedTokens = hits.length * this.#blockSize;
    sequence.numHashedBlocks = hits.length;
    sequence.prefix = hits.at(-1);
    return true;
  }

  /** True if the table has a place for the next token to compute. */
  canAppend(sequence: Sequence): boolean {
    return sequence.numComputedTokens < sequence.blockTable.length * this.#blockSize;
  }

  /** Appends one block to a running sequence's table; false if none is free. */
  grow(sequence: Sequence): boolean {
    return this.#pool.allocate(1, sequence.blockTable);
  }

  /**
   * Offers the sequence's computed full blocks for sharing. Called when their rows are scheduled, not
   * when they have run: a layer writes the K and V of all rows before any row attends, so a sequence of
   * the very same step may use them.
   */
  cacheFullBlocks(sequence: Sequence): void {
    const numFull = Math.floor(sequence.numComputedTokens / this.#blockSize);
    for (let i = sequence.numHashedBlocks; i < numFull; i++) {
      const block = sequence.blockTable[i]!;
      const start = i * this.#blockSize;
      sequence.prefix = this.#prefixes.insert(sequence.prefix, sequence.tokens, start, block);
    }
    sequence.numHashedBlocks = numFull;
  }

  /** Takes all blocks back. Their cached prefixes stay usable until the blocks are needed. */
  release(sequence: Sequence): void {
    this.#pool.release(sequence.blockTable);
    sequence.blockTable.length = 0;
    sequence.numComputedTokens = 0;
    sequence.numHashedBlocks = 0;
    sequence.prefix = undefined;
  }

  /** Forgets all prefixes: what the pool holds is lost or doubtful. No sequence may hold a block. */
  clear(): void {
    invariant(this.#pool.numUsed === 0, "The KV cache is cleared while sequences hold blocks.");
    this.#prefixes.clear();
  }

  /** Throws `internal` unless pool, prefixes and the tables of `sequences` (all that hold blocks) agree. */
  checkIntegrity(sequences: Iterable<Sequence>): void {
    const holders = new Int32Array(this.#pool.numBlocks);
    for (const sequence of sequences) {
      const { blockTable, numComputedTokens, numHashedBlocks } = sequence;
      for (const block of blockTable) holders[block]! += 1;
      const numHashable = Math.floor(numComputedTokens / this.#blockSize);
      invariant(
        numComputedTokens <= blockTable.length * this.#blockSize && numHashedBlocks === numHashable,
        `Sequence ${sequence.index} of request ${sequence.requestId} has ${numComputedTokens} computed tokens, ${numHashedBlocks} cached blocks and ${blockTable.length} blocks.`,
      );
    }
    this.#pool.checkIntegrity(holders);
    this.#prefixes.checkIntegrity();
  }
}
