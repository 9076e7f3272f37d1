import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { emptyTable, PagedPool, type Table } from "./pagedPool.ts";

describe("PagedPool", () => {
  it("takes a block only when the last one is full", () => {
    const pool = new PagedPool(4, 4);
    const table = emptyTable();
    pool.append(table, 3);
    expect(pool.physicalBlocks).toBe(1);
    expect(pool.blocksToAppend(table, 1)).toBe(0);
    pool.append(table, 1);
    expect(pool.physicalBlocks).toBe(1);
    expect(pool.blocksToAppend(table, 1)).toBe(1);
    pool.append(table, 1);
    expect(pool.physicalBlocks).toBe(2);
  });

  it("shares all blocks of a fork until one of the two writes", () => {
    const pool = new PagedPool(8, 4);
    const first = emptyTable();
    pool.append(first, 6);
    const second = pool.fork(first);
    expect([pool.physicalBlocks, pool.logicalBlocks]).toEqual([2, 4]);
    pool.append(second, 1); // a copy of the last block, 2 tokens
    expect([pool.physicalBlocks, pool.copiedTokens]).toEqual([3, 2]);
    pool.append(first, 1); // now alone: in place
    expect([pool.physicalBlocks, pool.copiedTokens]).toEqual([3, 2]);
    expect(second.blocks[0]).toBe(first.blocks[0]);
    expect(second.blocks[1]).not.toBe(first.blocks[1]);
  });

  it("reuses the block that was freed last", () => {
    const pool = new PagedPool(4, 4);
    const [a, b] = [emptyTable(), emptyTable()];
    pool.append(a, 4);
    pool.append(b, 4);
    const [block] = a.blocks;
    pool.free(a);
    pool.append(a, 1);
    expect(a.blocks).toEqual([block]);
  });

  it("brings swapped tables back as they were shared", () => {
    const pool = new PagedPool(8, 4);
    const first = emptyTable();
    pool.append(first, 6);
    const second = pool.fork(first);
    pool.append(second, 1);
    const swapped = pool.swapOut([first, second]);
    expect([pool.physicalBlocks, pool.logicalTokens, swapped.numBlocks]).toEqual([0, 0, 3]);
    const [a, b] = pool.swapIn(swapped);
    expect([pool.physicalBlocks, pool.physicalTokens, pool.logicalTokens]).toEqual([3, 9, 13]);
    expect(a!.blocks[0]).toBe(b!.blocks[0]);
    expect(a!.blocks[1]).not.toBe(b!.blocks[1]);
  });

  it("counts blocks and tokens as a walk over all tables does, over random histories", () => {
    const operation = fc.record({
      kind: fc.constantFrom("append", "fork", "free", "swap"),
      which: fc.nat(20),
      count: fc.integer({ min: 1, max: 9 }),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.array(operation), (blockSize, operations) => {
        const pool = new PagedPool(24, blockSize);
        let tables: Table[] = [emptyTable()];
        for (const { kind, which, count } of operations) {
          const table = tables[which % tables.length] ?? emptyTable();
          if (tables.length === 0) tables.push(table);
          if (kind === "append") {
            const before = pool.numFree;
            const needed = pool.blocksToAppend(table, count);
            if (needed > before) continue;
            pool.append(table, count);
            expect(pool.numFree).toBe(before - needed);
          } else if (kind === "fork") tables.push(pool.fork(table));
          else if (kind === "free") {
            pool.free(table);
            tables = tables.filter((other) => other !== table);
          } else tables = pool.swapIn(pool.swapOut(tables));
          checkCounts(pool, tables);
        }
      }),
    );
  });
});

function checkCounts(pool: PagedPool, tables: readonly Table[]): void {
  const fills = new Map<number, number>();
  for (const { blocks, length } of tables) {
    expect(blocks).toHaveLength(Math.ceil(length / pool.blockSize));
    for (const [i, block] of blocks.entries()) {
      const fill = Math.min(pool.blockSize, length - i * pool.blockSize);
      // Tables that share a block agree on what is in it: nobody writes into a shared block.
      expect(fills.get(block) ?? fill).toBe(fill);
      fills.set(block, fill);
    }
  }
  const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);
  expect(pool.physicalBlocks).toBe(fills.size);
  expect(pool.physicalTokens).toBe(sum(fills.values()));
  expect(pool.logicalBlocks).toBe(sum(tables.map(({ blocks }) => blocks.length)));
  expect(pool.logicalTokens).toBe(sum(tables.map(({ length }) => length)));
}
