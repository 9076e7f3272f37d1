import { invariant } from "../errors.ts";

/** The blocks of one sequence and the tokens in them. Only a `PagedPool` changes it. */
export interface Table {
  readonly blocks: number[];
  length: number;
}

/** Tables that are in host memory: blocks are numbered from 0, what was shared still is. */
export interface SwappedTables {
  readonly tables: readonly { readonly blocks: readonly number[]; readonly length: number }[];
  readonly numBlocks: number;
}

/**
 * Blocks with reference counts and copy-on-write, as in the paper: a free list that is a stack, no prefix
 * cache. `fork`, `append` and `free` are all that a decoding algorithm needs.
 */
export class PagedPool {
  readonly blockSize: number;
  readonly numBlocks: number;
  /** Sum over all tables. */
  logicalBlocks = 0;
  logicalTokens = 0;
  /** Tokens in distinct blocks. */
  physicalTokens = 0;
  /** Tokens copied on write so far. */
  copiedTokens = 0;

  readonly #free: Int32Array;
  #numFree: number;
  readonly #refCounts: Int32Array;
  /** Tokens in each block. */
  readonly #fill: Int32Array;

  constructor(numBlocks: number, blockSize: number) {
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.#numFree = numBlocks;
    this.#free = Int32Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
    this.#refCounts = new Int32Array(numBlocks);
    this.#fill = new Int32Array(numBlocks);
  }

  get numFree(): number {
    return this.#numFree;
  }

  get physicalBlocks(): number {
    return this.numBlocks - this.#numFree;
  }

  /** Free blocks that `append` would take; a shared last block needs one for its copy. */
  blocksToAppend({ blocks, length }: Table, count: number): number {
    if (count === 0) return 0;
    const whole = Math.ceil((length + count) / this.blockSize) - blocks.length;
    const last = blocks.at(-1);
    const isCopied =
      last !== undefined && length % this.blockSize !== 0 && this.#refCounts[last]! > 1;
    return whole + (isCopied ? 1 : 0);
  }

  /** Writes `count` tokens. The caller has seen to it that the blocks are there. */
  append(table: Table, count: number): void {
    const { blockSize } = this;
    const { blocks } = table;
    let missing = count;
    while (missing > 0) {
      const offset = table.length % blockSize;
      if (offset === 0) {
        blocks.push(this.#take());
        this.logicalBlocks += 1;
      } else if (this.#refCounts[blocks.at(-1)!]! > 1) {
        this.#copyLast(table, offset);
      }
      const written = Math.min(missing, blockSize - offset);
      this.#fill[blocks.at(-1)!]! += written;
      table.length += written;
      missing -= written;
      this.physicalTokens += written;
      this.logicalTokens += written;
    }
  }

  /** A second table of the same blocks, all of them or the first `length` tokens. */
  fork(table: Table, length = table.length): Table {
    const numBlocks = Math.ceil(length / this.blockSize);
    const blocks =
      numBlocks === table.blocks.length ? [...table.blocks] : table.blocks.slice(0, numBlocks);
    for (const block of blocks) this.#refCounts[block]! += 1;
    this.logicalBlocks += blocks.length;
    this.logicalTokens += length;
    return { blocks, length };
  }

  free(table: Table): void {
    for (const block of table.blocks) this.#release(block);
    this.logicalBlocks -= table.blocks.length;
    this.logicalTokens -= table.length;
    table.blocks.length = 0;
    table.length = 0;
  }

  /** Distinct blocks of the tables that nobody else holds: what freeing them would give. */
  exclusiveBlocks(tables: readonly Table[]): number {
    const counts = new Map<number, number>();
    for (const { blocks } of tables) {
      for (const block of blocks) counts.set(block, (counts.get(block) ?? 0) + 1);
    }
    let exclusive = 0;
    for (const [block, count] of counts) if (this.#refCounts[block] === count) exclusive += 1;
    return exclusive;
  }

  /** Frees the tables and says how to build them again. */
  swapOut(tables: readonly Table[]): SwappedTables {
    const places = new Map<number, number>();
    const swapped = tables.map((table) => {
      const blocks = table.blocks.map((block) => {
        const place = places.get(block) ?? places.size;
        places.set(block, place);
        return place;
      });
      const { length } = table;
      this.free(table);
      return { blocks, length };
    });
    return { tables: swapped, numBlocks: places.size };
  }

  /** The caller has seen to it that `numBlocks` are free. */
  swapIn({ tables, numBlocks }: SwappedTables): Table[] {
    const blocks = Array.from({ length: numBlocks }, () => this.#take());
    for (const block of blocks) this.#refCounts[block] = 0;
    return tables.map(({ blocks: places, length }) => {
      const own = places.map((place) => blocks[place]!);
      for (const [i, block] of own.entries()) {
        const fill = Math.min(this.blockSize, length - i * this.blockSize);
        if (this.#refCounts[block] === 0) {
          this.#fill[block] = fill;
          this.physicalTokens += fill;
        }
        this.#refCounts[block]! += 1;
      }
      this.logicalBlocks += own.length;
      this.logicalTokens += length;
      return { blocks: own, length };
    });
  }

  #take(): number {
    invariant(this.#numFree > 0, "The paged pool has no free block.");
    this.#numFree -= 1;
    const block = this.#free[this.#numFree]!;
    this.#refCounts[block] = 1;
    this.#fill[block] = 0;
    return block;
  }

  #release(block: number): void {
    const refCount = --this.#refCounts[block]!;
    if (refCount > 0) return;
    this.physicalTokens -= this.#fill[block]!;
    this.#free[this.#numFree] = block;
    this.#numFree += 1;
  }

  /** The first writer gets a copy, the others keep the block. */
  #copyLast({ blocks }: Table, offset: number): void {
    const copy = this.#take();
    this.#fill[copy] = offset;
    this.physicalTokens += offset;
    this.copiedTokens += offset;
    this.#release(blocks.at(-1)!);
    blocks[blocks.length - 1] = copy;
  }
}

export function emptyTable(): Table {
  return { blocks: [], length: 0 };
}
