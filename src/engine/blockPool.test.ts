import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BLOCK_RANK, type BlockContents, BlockPool, type BlockRank } from "./blockPool.ts";

/** Stands for a prefix cache that values blocks as `ranks` says and notes what is evicted from it. */
function createContents(cachedBlocks: Iterable<number> = []) {
  const ranks = new Map<number, BlockRank>();
  for (const block of cachedBlocks) ranks.set(block, BLOCK_RANK.cached);
  const evicted: number[] = [];
  const letGo: number[] = [];
  const contents: BlockContents = {
    rank: (block) => ranks.get(block) ?? BLOCK_RANK.empty,
    letGo: (block) => letGo.push(block),
    evict: (block) => {
      ranks.delete(block);
      evicted.push(block);
    },
  };
  return { contents, ranks, evicted, letGo };
}

function allocate(pool: BlockPool, count: number): number[] {
  const table: number[] = [];
  expect(pool.allocate(count, table)).toBe(true);
  return table;
}

function release(pool: BlockPool, table: readonly number[]): void {
  for (const block of table.toReversed()) pool.release(block);
}

describe("BlockPool", () => {
  it("hands out blocks in id order at first", () => {
    const pool = new BlockPool(4, createContents().contents);
    expect(pool.freeBlocks()).toEqual([0, 1, 2, 3]);
    expect(allocate(pool, 3)).toEqual([0, 1, 2]);
    expect(pool.freeBlocks()).toEqual([3]);
    expect(pool.numUsed).toBe(3);
  });

  it("works with a single block", () => {
    const pool = new BlockPool(1, createContents().contents);
    const table = allocate(pool, 1);
    expect(pool.freeBlocks()).toEqual([]);
    release(pool, table);
    expect(pool.freeBlocks()).toEqual([0]);
  });

  it("allocates all or nothing: a failed allocation touches nothing", () => {
    const { contents, evicted } = createContents([1]);
    const pool = new BlockPool(3, contents);
    const table = [7];
    expect(pool.allocate(4, table)).toBe(false);
    expect(table).toEqual([7]);
    expect(pool.freeBlocks()).toEqual([0, 1, 2]);
    expect(evicted).toEqual([]);
  });

  it("allocates zero blocks from an empty pool, and refuses to take one", () => {
    const pool = new BlockPool(1, createContents().contents);
    allocate(pool, 1);
    expect(allocate(pool, 0)).toEqual([]);
    expect(() => pool.take()).toThrow(/none is free/);
  });

  it("reuses blocks without a prefix first, cached ones last and tail first", () => {
    const { contents } = createContents([0, 1, 2]);
    const pool = new BlockPool(10, contents);
    for (let i = 0; i < 3; i++) pool.retain(i);
    const first = [0, 1, 2];
    const second = [...first];
    for (const block of first) pool.retain(block);
    pool.allocate(1, first); // 3
    pool.allocate(1, second); // 4
    release(pool, first);
    release(pool, second);
    // Newest unhashed first, then never used, then hashed with the tail ahead of the head.
    expect(pool.freeBlocks()).toEqual([4, 3, 5, 6, 7, 8, 9, 2, 1, 0]);
  });

  it("evicts a cached prefix only when its block is taken", () => {
    const { contents, evicted } = createContents([0, 1]);
    const pool = new BlockPool(3, contents);
    pool.retain(0);
    pool.retain(1);
    release(pool, [0, 1]);
    expect(evicted).toEqual([]);
    expect(allocate(pool, 2)).toEqual([2, 1]);
    expect(evicted).toEqual([1]);
  });

  it("reuses superseded blocks before cached ones and kept ones last of all", () => {
    const { contents, ranks, evicted } = createContents();
    const pool = new BlockPool(5, contents);
    const table = allocate(pool, 5);
    ranks.set(0, BLOCK_RANK.kept);
    ranks.set(1, BLOCK_RANK.cached);
    ranks.set(2, BLOCK_RANK.superseded);
    ranks.set(4, BLOCK_RANK.cached);
    release(pool, table);
    expect(pool.freeBlocks()).toEqual([3, 2, 4, 1, 0]);
    expect(pool.numFree).toBe(5);
    expect(pool.numKept).toBe(1);
    expect(allocate(pool, 5)).toEqual([3, 2, 4, 1, 0]);
    expect(evicted).toEqual([2, 4, 1, 0]);
    expect(pool.numKept).toBe(0);
  });

  it("lists a free block anew when its rank has changed, and leaves a held one alone", () => {
    const { contents, ranks } = createContents([0, 1, 2]);
    const pool = new BlockPool(3, contents);
    release(pool, allocateCached(pool, [0, 1, 2]));
    expect(pool.freeBlocks()).toEqual([2, 1, 0]);
    ranks.set(1, BLOCK_RANK.superseded);
    pool.relist(1);
    expect(pool.freeBlocks()).toEqual([1, 2, 0]);
    ranks.set(2, BLOCK_RANK.kept);
    pool.relist(2);
    expect(pool.freeBlocks()).toEqual([1, 0, 2]);
    ranks.set(2, BLOCK_RANK.cached);
    pool.relist(2);
    expect(pool.freeBlocks()).toEqual([1, 0, 2]);
    expect(pool.numKept).toBe(0);
    pool.retain(0);
    ranks.set(0, BLOCK_RANK.kept);
    pool.relist(0);
    expect(pool.freeBlocks()).toEqual([1, 2]);
    pool.checkIntegrity(Int32Array.of(1, 0, 0));
  });

  it("takes a free cached block out of the middle of the list when it is hit", () => {
    const { contents, evicted } = createContents();
    const pool = new BlockPool(3, contents);
    pool.retain(1);
    expect(pool.freeBlocks()).toEqual([0, 2]);
    expect(pool.refCount(1)).toBe(1);
    expect(evicted).toEqual([]);
  });

  it("frees a shared block when its last holder lets go", () => {
    const { contents, letGo } = createContents();
    const pool = new BlockPool(2, contents);
    const table = allocate(pool, 1);
    pool.retain(table[0]!);
    release(pool, table);
    expect(letGo).toEqual([]);
    expect(pool.refCount(0)).toBe(1);
    expect(pool.numFree).toBe(1);
    release(pool, table);
    expect(pool.refCount(0)).toBe(0);
    expect(pool.numFree).toBe(2);
    expect(letGo).toEqual([0]);
  });

  it("refuses to release what nobody holds", () => {
    const pool = new BlockPool(2, createContents().contents);
    expect(() => pool.release(1)).toThrow(/nobody holds/);
  });

  it("remembers the most blocks that were held during a step", () => {
    const pool = new BlockPool(4, createContents().contents);
    const table = allocate(pool, 3);
    pool.notePeak();
    release(pool, table);
    allocate(pool, 1);
    pool.notePeak();
    expect(pool.peakUsed).toBe(3);
  });

  it("is as at first after a reset, which needs all blocks free", () => {
    const { contents, ranks } = createContents([2, 0]);
    const pool = new BlockPool(3, contents);
    const table = allocateCached(pool, [0, 2]);
    expect(() => pool.reset()).toThrow(/while blocks are held/);
    release(pool, table);
    ranks.clear();
    pool.reset();
    expect(pool.freeBlocks()).toEqual([0, 1, 2]);
    pool.checkIntegrity(new Int32Array(3));
  });

  it("notices holders that disagree with the counts", () => {
    const pool = new BlockPool(2, createContents().contents);
    allocate(pool, 1);
    expect(() => pool.checkIntegrity(Int32Array.of(1, 0))).not.toThrow();
    expect(() => pool.checkIntegrity(Int32Array.of(0, 0))).toThrow(/held 0 times/);
    expect(() => pool.checkIntegrity(Int32Array.of(1, 1))).toThrow(/held 1 times/);
  });

  it("notices a free block whose rank changed behind its back", () => {
    const { contents, ranks } = createContents();
    const pool = new BlockPool(2, contents);
    ranks.set(0, BLOCK_RANK.kept);
    expect(() => pool.checkIntegrity(new Int32Array(2))).toThrow(/another rank/);
  });

  it("behaves like plain lists with counts over random histories", () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant("allocate" as const), count: fc.nat(6) }),
      fc.record({ kind: fc.constant("release" as const), pick: fc.nat() }),
      fc.record({ kind: fc.constant("retain" as const), pick: fc.nat() }),
      fc.record({
        kind: fc.constant("rank" as const),
        pick: fc.nat(),
        rank: fc.constantFrom(...Object.values(BLOCK_RANK)),
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.array(operation), (numBlocks, history) => {
        const { contents, ranks, evicted } = createContents();
        const pool = new BlockPool(numBlocks, contents);
        const lists: number[][] = [Array.from({ length: numBlocks }, (_, i) => i), [], [], []];
        const list = (block: number): void => {
          const rank = contents.rank(block);
          if (rank === BLOCK_RANK.empty) lists[rank]!.unshift(block);
          else lists[rank]!.push(block);
        };
        const unlist = (block: number): void => {
          for (const [i, blocks] of lists.entries()) lists[i] = blocks.filter((b) => b !== block);
        };
        const tables: number[][] = [];
        for (const op of history) {
          if (op.kind === "allocate") {
            const free = lists.flat();
            const table: number[] = [];
            const fits = op.count <= free.length;
            const taken = fits ? free.slice(0, op.count) : [];
            const lost = taken.filter((block) => ranks.has(block) && ranks.get(block) !== 0);
            evicted.length = 0;
            expect(pool.allocate(op.count, table)).toBe(fits);
            expect(table).toEqual(taken);
            expect(evicted).toEqual(lost);
            for (const block of taken) unlist(block);
            tables.push(table);
          } else if (op.kind === "release" && tables.length > 0) {
            const [table] = tables.splice(op.pick % tables.length, 1);
            const others = tables.flat();
            release(pool, table!);
            for (const block of table!.toReversed()) if (!others.includes(block)) list(block);
          } else if (op.kind === "retain") {
            const block = op.pick % numBlocks;
            pool.retain(block);
            unlist(block);
            tables.push([block]);
          } else if (op.kind === "rank") {
            const block = op.pick % numBlocks;
            ranks.set(block, op.rank);
            pool.relist(block);
            if (lists.flat().includes(block)) {
              unlist(block);
              list(block);
            }
          }
          expect(pool.freeBlocks()).toEqual(lists.flat());
          expect(pool.numKept).toBe(lists[BLOCK_RANK.kept]!.length);
          const holders = new Int32Array(numBlocks);
          for (const block of tables.flat()) holders[block]! += 1;
          pool.checkIntegrity(holders);
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** Holds these blocks, as a prefix hit does. */
function allocateCached(pool: BlockPool, blocks: readonly number[]): readonly number[] {
  for (const block of blocks) pool.retain(block);
  return blocks;
}
