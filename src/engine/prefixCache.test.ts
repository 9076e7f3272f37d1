import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hashTokens, PrefixCache, type PrefixNode } from "./prefixCache.ts";

const BLOCK_SIZE = 2;

/** Caches the full blocks of `tokens` in these blocks. */
function insertAll(cache: PrefixCache, tokens: readonly number[], blocks: readonly number[]): void {
  let parent: PrefixNode | undefined;
  for (const [i, block] of blocks.entries()) {
    parent = cache.insert(parent, tokens, i * BLOCK_SIZE, block);
  }
}

function findBlocks(cache: PrefixCache, tokens: readonly number[]): number[] {
  const nodes = cache.find(tokens, Math.floor(tokens.length / BLOCK_SIZE));
  return nodes.map(({ blocks }) => blocks[0]!);
}

describe("PrefixCache", () => {
  it("finds the longest cached prefix in full blocks", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE);
    insertAll(cache, [1, 2, 3, 4, 5, 6], [5, 6, 7]);
    expect(findBlocks(cache, [1, 2, 3, 4, 5, 6])).toEqual([5, 6, 7]);
    expect(findBlocks(cache, [1, 2, 3, 4, 9, 9])).toEqual([5, 6]);
    expect(findBlocks(cache, [1, 2, 3])).toEqual([5]);
    expect(findBlocks(cache, [3, 4, 5, 6])).toEqual([]);
    expect(cache.find([1, 2, 3, 4, 5, 6], 2)).toHaveLength(2);
  });

  it("tells equal tokens after different prefixes apart", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE);
    insertAll(cache, [1, 1, 3, 3], [0, 1]);
    insertAll(cache, [2, 2, 3, 3], [2, 3]);
    expect(findBlocks(cache, [2, 2, 3, 3])).toEqual([2, 3]);
    expect(findBlocks(cache, [1, 1, 3, 3])).toEqual([0, 1]);
  });

  it("never serves another prefix when all hashes collide", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE, () => 7);
    insertAll(cache, [1, 1, 3, 3], [0, 1]);
    insertAll(cache, [2, 2, 3, 3], [2, 3]);
    insertAll(cache, [2, 2, 4, 4], [5, 6]);
    expect(findBlocks(cache, [2, 2, 3, 3])).toEqual([2, 3]);
    expect(findBlocks(cache, [2, 2, 4, 4])).toEqual([2, 6]);
    expect(findBlocks(cache, [3, 3])).toEqual([]);
    for (const block of [3, 6, 0]) {
      if (block === 0) cache.evict(1);
      cache.evict(block);
      cache.checkIntegrity();
    }
    expect(findBlocks(cache, [1, 1, 3, 3])).toEqual([]);
    expect(findBlocks(cache, [2, 2, 3, 3])).toEqual([2]);
  });

  it("keeps duplicates and evicts only the block that is asked for", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE);
    insertAll(cache, [1, 2], [3]);
    insertAll(cache, [1, 2], [4]);
    insertAll(cache, [1, 2], [5]);
    expect(cache.numBlocks).toBe(3);
    cache.evict(3);
    cache.checkIntegrity();
    expect(cache.has(3)).toBe(false);
    expect(findBlocks(cache, [1, 2])).toHaveLength(1);
    cache.evict(5);
    expect(findBlocks(cache, [1, 2])).toEqual([4]);
    cache.evict(4);
    expect(findBlocks(cache, [1, 2])).toEqual([]);
    expect(cache.numBlocks).toBe(0);
    cache.checkIntegrity();
  });

  it("refuses to cache a block twice or to evict what it does not have", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE);
    insertAll(cache, [1, 2], [3]);
    expect(() => insertAll(cache, [7, 8], [3])).toThrow(/cached twice/);
    expect(() => cache.evict(4)).toThrow(/holds no prefix/);
  });

  it("notices a prefix that outlives its parent", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE);
    insertAll(cache, [1, 2, 3, 4], [0, 1]);
    cache.evict(0);
    expect(() => cache.checkIntegrity()).toThrow(/outlived its parent/);
  });

  it("forgets everything on clear", () => {
    const cache = new PrefixCache(8, BLOCK_SIZE);
    insertAll(cache, [1, 2, 3, 4], [0, 1]);
    cache.clear();
    cache.checkIntegrity();
    expect(cache.numBlocks).toBe(0);
    expect(cache.has(0)).toBe(false);
    expect(findBlocks(cache, [1, 2, 3, 4])).toEqual([]);
  });

  it("finds what a search through all inserted prefixes finds, however badly it hashes", () => {
    const tokens = fc.array(fc.nat(2), { minLength: 0, maxLength: 8 });
    fc.assert(
      fc.property(
        fc.array(tokens, { maxLength: 12 }),
        tokens,
        fc.nat(3),
        (inserted, query, mask) => {
          const cache = new PrefixCache(64, BLOCK_SIZE, (...args) => hashTokens(...args) & mask);
          const prefixes = new Set<string>();
          let block = 0;
          for (const list of inserted) {
            const blocks = Array.from({ length: Math.floor(list.length / 2) }, () => block++);
            insertAll(cache, list, blocks);
            for (let end = 2; end <= list.length; end += 2) prefixes.add(list.slice(0, end).join());
          }
          cache.checkIntegrity();
          let expected = 0;
          while (
            prefixes.has(query.slice(0, 2 * (expected + 1)).join()) &&
            2 * expected < query.length - 1
          )
            expected += 1;
          expect(findBlocks(cache, query)).toHaveLength(expected);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("hashTokens", () => {
  it("depends on every token, their order and the parent", () => {
    const base = hashTokens(1, [1, 2, 3, 4], 0, 4);
    expect(hashTokens(1, [1, 2, 3, 4], 0, 4)).toBe(base);
    expect(hashTokens(2, [1, 2, 3, 4], 0, 4)).not.toBe(base);
    expect(hashTokens(1, [1, 2, 4, 3], 0, 4)).not.toBe(base);
    expect(hashTokens(1, [0, 1, 2, 3, 4], 1, 5)).toBe(base);
  });

  it("spreads: 50,000 blocks of small ids leave few collisions", () => {
    const hashes = new Set<number>();
    for (let i = 0; i < 50_000; i++) hashes.add(hashTokens(i % 7, [i % 250, (i / 250) | 0], 0, 2));
    expect(hashes.size).toBeGreaterThan(49_900);
  });
});
