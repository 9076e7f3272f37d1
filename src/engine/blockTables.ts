import { invariant } from "../errors.ts";
import { BlockCopies } from "./blockCopies.ts";
import type { BlockPool } from "./blockPool.ts";

/** The part of a sequence that says where its K and V are. */
export interface BlockTableHolder {
  /** Physical blocks; entry i holds positions [i * blockSize, (i + 1) * blockSize). */
  readonly blockTable: number[];
  numComputedTokens: number;
  /** Leading entries of the table that the back end knows. */
  numSentBlocks: number;
}

/**
 * Block tables that may share blocks, also partly filled ones: whoever writes into a shared block first
 * gets a copy of its own, and the last that holds it writes in place (copy-on-write, as in the paper).
 */
export class BlockTables {
  readonly copies: BlockCopies;
  readonly #blockSize: number;
  readonly #pool: BlockPool;

  constructor(pool: BlockPool, blockSize: number) {
    this.#pool = pool;
    this.#blockSize = blockSize;
    this.copies = new BlockCopies(pool);
  }

  /** Makes the next `numRows` positions writable; see `KvCache.reserve`. */
  reserve(holder: BlockTableHolder, numRows: number): boolean {
    const { blockTable, numComputedTokens } = holder;
    const first = Math.floor(numComputedTokens / this.#blockSize);
    const numBlocks = Math.ceil((numComputedTokens + numRows) / this.#blockSize);
    const numListed = Math.min(numBlocks, blockTable.length);
    let numNeeded = numBlocks - numListed;
    for (let i = first; i < numListed; i++) if (this.isShared(blockTable[i]!)) numNeeded += 1;
    if (numNeeded === 0) return true;
    if (numNeeded > this.#pool.numFree) return false;
    for (let i = first; i < numListed; i++) {
      if (this.isShared(blockTable[i]!)) this.#replace(holder, i);
    }
    this.#pool.allocate(numBlocks - numListed, blockTable);
    return true;
  }

  /** The child's empty table becomes the parent's, every block shared. */
  fork(parent: BlockTableHolder, child: BlockTableHolder): void {
    invariant(child.blockTable.length === 0, "A sequence that holds blocks is forked into.");
    for (const block of parent.blockTable) this.share(child, block);
    child.numComputedTokens = parent.numComputedTokens;
    child.numSentBlocks = 0;
  }

  share({ blockTable }: BlockTableHolder, block: number): void {
    this.#pool.retain(block);
    blockTable.push(block);
  }

  /** Lets go of the table's blocks from its end, down to `length` of them. */
  shrink(holder: BlockTableHolder, length: number): void {
    const { blockTable } = holder;
    while (blockTable.length > length) {
      const block = blockTable.pop()!;
      this.#pool.release(block);
      if (this.#pool.refCount(block) === 0) this.copies.drop(block);
    }
    holder.numSentBlocks = Math.min(holder.numSentBlocks, blockTable.length);
  }

  isShared(block: number): boolean {
    return this.copies.numOwners(block) > 1;
  }

  countExclusive({ blockTable }: BlockTableHolder): number {
    let count = 0;
    for (const block of blockTable) if (!this.isShared(block)) count += 1;
    return count;
  }

  /** Computed tokens in blocks that nobody else holds. */
  countExclusiveTokens({ blockTable, numComputedTokens }: BlockTableHolder): number {
    let count = 0;
    for (let i = 0, start = 0; start < numComputedTokens; i++, start += this.#blockSize) {
      if (this.isShared(blockTable[i]!)) continue;
      count += Math.min(this.#blockSize, numComputedTokens - start);
    }
    return count;
  }

  /** The `index`-th block becomes the holder's own, with a copy of what is computed in it. */
  #replace(holder: BlockTableHolder, index: number): void {
    const { blockTable, numComputedTokens, numSentBlocks } = holder;
    const block = blockTable[index]!;
    const own = this.#pool.take();
    blockTable[index] = own;
    holder.numSentBlocks = Math.min(numSentBlocks, index);
    if (index * this.#blockSize < numComputedTokens) this.copies.add(block, own);
    else this.#pool.release(block);
  }
}
