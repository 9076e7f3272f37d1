import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BlockPool, type CachedBlocks } from "./blockPool.ts";

/** Stands for a prefix cache that knows `blocks` and notes what is evicted from it. */
function createCached(blocks: Iterable<number> = []) {
  const known = new Set(blocks);
  const evicted: number[] = [];
  const cached: CachedBlocks = {
    has: (block) => known.has(block),
    evict: (block) => {
      known.delete(block);
      evicted.push(block);
    },
  };
  return { cached, known, evicted };
}

function allocate(pool: BlockPool, count: number): number[] {
  const table: number[] = [];
  expect(pool.allocate(count, table)).toBe(true);
  return table;
}

describe("BlockPool", () => {
  it("hands out blocks in id order at first", () => {
    const pool = new BlockPool(4, createCached().cached);
    expect(pool.freeBlocks()).toEqual([0, 1, 2, 3]);
    expect(allocate(pool, 3)).toEqual([0, 1, 2]);
    expect(pool.freeBlocks()).toEqual([3]);
    expect(pool.numUsed).toBe(3);
  });

  it("works with a single block", () => {
    const pool = new BlockPool(1, createCached().cached);
    const table = allocate(pool, 1);
    expect(pool.freeBlocks()).toEqual([]);
    pool.release(table);
    expect(pool.freeBlocks()).toEqual([0]);
  });

  it("allocates all or nothing: a failed allocation touches nothing", () => {
    const { cached, evicted } = createCached([1]);
    const pool = new BlockPool(3, cached);
    const table = [7];
    expect(pool.allocate(4, table)).toBe(false);
    expect(table).toEqual([7]);
    expect(pool.freeBlocks()).toEqual([0, 1, 2]);
    expect(evicted).toEqual([]);
  });

  it("allocates zero blocks from an empty pool", () => {
    const pool = new BlockPool(1, createCached().cached);
    allocate(pool, 1);
    expect(allocate(pool, 0)).toEqual([]);
  });

  it("reuses blocks without a prefix first, cached ones last and tail first", () => {
    const { cached } = createCached([0, 1, 2]);
    const pool = new BlockPool(10, cached);
    for (let i = 0; i < 3; i++) pool.retain(i);
    const first = [0, 1, 2];
    const second = [...first];
    for (const block of first) pool.retain(block);
    pool.allocate(1, first); // 3
    pool.allocate(1, second); // 4
    pool.release(first);
    pool.release(second);
    // Newest unhashed first, then never used, then hashed with the tail ahead of the head.
    expect(pool.freeBlocks()).toEqual([4, 3, 5, 6, 7, 8, 9, 2, 1, 0]);
  });

  it("evicts a cached prefix only when its block is taken", () => {
    const { cached, evicted } = createCached([0, 1]);
    const pool = new BlockPool(3, cached);
    pool.retain(0);
    pool.retain(1);
    pool.release([0, 1]);
    expect(evicted).toEqual([]);
    expect(allocate(pool, 2)).toEqual([2, 1]);
    expect(evicted).toEqual([1]);
  });

  it("takes a free cached block out of the middle of the list when it is hit", () => {
    const { cached, evicted } = createCached([1]);
    const pool = new BlockPool(3, cached);
    pool.retain(1);
    expect(pool.freeBlocks()).toEqual([0, 2]);
    expect(pool.refCount(1)).toBe(1);
    expect(evicted).toEqual([]);
  });

  it("frees a shared block when its last holder lets go", () => {
    const pool = new BlockPool(2, createCached().cached);
    const table = allocate(pool, 1);
    pool.retain(table[0]!);
    pool.release(table);
    expect(pool.refCount(0)).toBe(1);
    expect(pool.numFree).toBe(1);
    pool.release(table);
    expect(pool.refCount(0)).toBe(0);
    expect(pool.numFree).toBe(2);
  });

  it("refuses to release what nobody holds", () => {
    const pool = new BlockPool(2, createCached().cached);
    expect(() => pool.release([1])).toThrow(/nobody holds/);
  });

  it("remembers the peak of held blocks", () => {
    const pool = new BlockPool(4, createCached().cached);
    const table = allocate(pool, 3);
    pool.release(table);
    allocate(pool, 1);
    expect(pool.peakUsed).toBe(3);
  });

  it("notices holders that disagree with the counts", () => {
    const pool = new BlockPool(2, createCached().cached);
    allocate(pool, 1);
    expect(() => pool.checkIntegrity(Int32Array.of(1, 0))).not.toThrow();
    expect(() => pool.checkIntegrity(Int32Array.of(0, 0))).toThrow(/block tables hold it/);
    expect(() => pool.checkIntegrity(Int32Array.of(1, 1))).toThrow(/block tables hold it/);
  });

  it("behaves like a plain list with counts over random histories", () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant("allocate" as const), count: fc.nat(6) }),
      fc.record({ kind: fc.constant("release" as const), pick: fc.nat() }),
      fc.record({ kind: fc.constant("retain" as const), pick: fc.nat() }),
      fc.record({ kind: fc.constant("cache" as const), pick: fc.nat() }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.array(operation), (numBlocks, history) => {
        const { cached, known, evicted } = createCached();
        const pool = new BlockPool(numBlocks, cached);
        let free = Array.from({ length: numBlocks }, (_, i) => i);
        const tables: number[][] = [];
        for (const op of history) {
          const held = tables.flat();
          if (op.kind === "allocate") {
            const table: number[] = [];
            const fits = op.count <= free.length;
            const taken = fits ? free.slice(0, op.count) : [];
            const lost = taken.filter((block) => known.has(block));
            evicted.length = 0;
            expect(pool.allocate(op.count, table)).toBe(fits);
            expect(table).toEqual(taken);
            expect(evicted).toEqual(lost);
            free = free.slice(taken.length);
            tables.push(table);
          } else if (op.kind === "release" && tables.length > 0) {
            const [table] = tables.splice(op.pick % tables.length, 1);
            pool.release(table!);
            const others = tables.flat();
            for (const block of table!.toReversed()) {
              if (others.includes(block)) continue;
              if (known.has(block)) free.push(block);
              else free.unshift(block);
            }
          } else if (op.kind === "retain") {
            const block = op.pick % numBlocks;
            pool.retain(block);
            free = free.filter((other) => other !== block);
            tables.push([block]);
          } else if (op.kind === "cache" && held.length > 0) {
            known.add(held[op.pick % held.length]!);
          }
          expect(pool.freeBlocks()).toEqual(free);
          const holders = new Int32Array(numBlocks);
          for (const block of tables.flat()) holders[block]! += 1;
          pool.checkIntegrity(holders);
        }
      }),
      { numRuns: 300 },
    );
  });
});
