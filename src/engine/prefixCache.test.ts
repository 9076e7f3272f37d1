import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BLOCK_RANK } from "./blockPool.ts";
import { PrefixCache } from "./prefixCache.ts";
import { DEFAULT_SCOPE, type PrefixKey, type PrefixNode, type PrefixScope } from "./prefixNode.ts";
import { hashTokens, type TokenHash } from "./tokenHash.ts";

const BLOCK_SIZE = 2;

function createCache(hash?: TokenHash, numBlocks = 16, blockSize = BLOCK_SIZE) {
  const evictions: (readonly [number, number])[] = [];
  const relisted: number[] = [];
  const free = new Set<number>();
  const cache = new PrefixCache({
    numBlocks,
    blockSize,
    hash,
    isFree: (block) => free.has(block),
    onRankChange: (blocks) => relisted.push(...blocks),
    onPinLost: () => expect.unreachable("no prefix is kept here"),
    onEviction: (block, numTokens) => evictions.push([block, numTokens]),
  });
  cache.stepId = 1;
  return { cache, evictions, relisted, free };
}

function keyOf(tokens: readonly number[], scope: PrefixScope = DEFAULT_SCOPE): PrefixKey {
  return { tokens, prefixScope: scope, blockHashes: [], lastHit: undefined };
}

/** Caches the full blocks of `tokens` in these blocks. */
function insertAll(
  cache: PrefixCache,
  tokens: readonly number[],
  blocks: readonly number[],
  scope?: PrefixScope,
): PrefixNode | undefined {
  const key = keyOf(tokens, scope);
  let parent: PrefixNode | undefined;
  for (const [i, block] of blocks.entries()) parent = cache.insert(parent, key, i, block);
  return parent;
}

function findBlocks(cache: PrefixCache, tokens: readonly number[], scope?: PrefixScope): number[] {
  const nodes = cache.find(keyOf(tokens, scope), Math.floor(tokens.length / BLOCK_SIZE));
  return nodes.map(({ blocks }) => blocks[0]!);
}

describe("PrefixCache", () => {
  it("finds the longest cached prefix in full blocks", () => {
    const { cache } = createCache();
    insertAll(cache, [1, 2, 3, 4, 5, 6], [5, 6, 7]);
    expect(findBlocks(cache, [1, 2, 3, 4, 5, 6])).toEqual([5, 6, 7]);
    expect(findBlocks(cache, [1, 2, 3, 4, 9, 9])).toEqual([5, 6]);
    expect(findBlocks(cache, [1, 2, 3])).toEqual([5]);
    expect(findBlocks(cache, [3, 4, 5, 6])).toEqual([]);
    expect(cache.find(keyOf([1, 2, 3, 4, 5, 6]), 2)).toHaveLength(2);
  });

  it("tells equal tokens after different prefixes apart", () => {
    const { cache } = createCache();
    insertAll(cache, [1, 1, 3, 3], [0, 1]);
    insertAll(cache, [2, 2, 3, 3], [2, 3]);
    expect(findBlocks(cache, [2, 2, 3, 3])).toEqual([2, 3]);
    expect(findBlocks(cache, [1, 1, 3, 3])).toEqual([0, 1]);
  });

  it("never serves another prefix when all hashes collide", () => {
    const { cache } = createCache(() => 7);
    insertAll(cache, [1, 1, 3, 3], [0, 1]);
    insertAll(cache, [2, 2, 3, 3], [2, 3]);
    insertAll(cache, [2, 2, 4, 4], [5, 6]);
    insertAll(cache, [3, 3], [7]);
    expect(findBlocks(cache, [2, 2, 3, 3])).toEqual([2, 3]);
    expect(findBlocks(cache, [2, 2, 4, 4])).toEqual([2, 6]);
    expect(findBlocks(cache, [3, 3])).toEqual([7]);
    expect(findBlocks(cache, [4, 4])).toEqual([]);
    for (const block of [3, 6, 1, 0]) {
      cache.evict(block);
      cache.checkIntegrity();
    }
    expect(findBlocks(cache, [1, 1, 3, 3])).toEqual([]);
    expect(findBlocks(cache, [2, 2, 3, 3])).toEqual([2]);
    expect(findBlocks(cache, [3, 3])).toEqual([7]);
  });

  it("shares within a scope only: salt and adapter are part of the key, colliding hashes or not", () => {
    for (const hash of [undefined, () => 7]) {
      const { cache } = createCache(hash);
      const scopes: PrefixScope[] = [
        DEFAULT_SCOPE,
        { salt: "a", adapterId: null },
        { salt: "b", adapterId: null },
        { salt: "", adapterId: "a" },
        { salt: "a", adapterId: "a" },
        { salt: "", adapterId: "" },
      ];
      for (const [i, scope] of scopes.entries()) {
        expect(findBlocks(cache, [1, 2, 3, 4], scope)).toEqual([]);
        expect(cache.findPartial(undefined, keyOf([1, 2], scope), 0, 2)).toBeUndefined();
        insertAll(cache, [1, 2, 3, 4], [2 * i, 2 * i + 1], scope);
      }
      cache.stepId = 2;
      for (const [i, scope] of scopes.entries()) {
        expect(findBlocks(cache, [1, 2, 3, 4], { ...scope })).toEqual([2 * i, 2 * i + 1]);
        const partial = cache.findPartial(undefined, keyOf([1, 9], scope), 0, 2);
        expect(partial).toEqual({ block: 2 * i, numTokens: 1 });
      }
      cache.checkIntegrity();
      for (let block = 11; block >= 0; block--) cache.evict(block);
      cache.checkIntegrity();
    }
  });

  it("hashes scopes apart and every block of a key once", () => {
    let numHashed = 0;
    const { cache } = createCache((...args) => {
      numHashed += 1;
      return hashTokens(...args);
    });
    const key = keyOf([1, 2, 3, 4]);
    const salted = keyOf([1, 2, 3, 4], { salt: "a", adapterId: null });
    cache.insert(cache.insert(undefined, key, 0, 0), key, 1, 1);
    cache.insert(cache.insert(undefined, salted, 0, 2), salted, 1, 3);
    expect(key.blockHashes).toHaveLength(2);
    expect(key.blockHashes[0]).not.toBe(salted.blockHashes[0]);
    expect(key.blockHashes[1]).not.toBe(salted.blockHashes[1]);
    numHashed = 0;
    for (let i = 0; i < 5; i++) expect(cache.find(key, 2)).toHaveLength(2);
    expect(numHashed).toBe(0);
  });

  it("keeps no duplicate that nobody holds", () => {
    const { cache, relisted, free } = createCache();
    const key = keyOf([1, 2, 3, 4]);
    const node = cache.insert(undefined, key, 0, 5);
    free.add(5);
    cache.insert(undefined, key, 0, 9);
    expect(node.blocks).toEqual([9]);
    expect([cache.nodeOf(5), cache.numBlocks]).toEqual([undefined, 1]);
    expect(relisted).toContain(5);
    cache.insert(undefined, key, 0, 7);
    expect(node.blocks).toEqual([9, 7]);
    cache.checkIntegrity();
  });

  it("keeps duplicates and evicts only the block that is asked for", () => {
    const { cache, evictions } = createCache();
    insertAll(cache, [1, 2], [3]);
    insertAll(cache, [1, 2], [4]);
    insertAll(cache, [1, 2], [5]);
    expect(cache.numBlocks).toBe(3);
    cache.evict(3);
    cache.checkIntegrity();
    expect(cache.nodeOf(3)).toBeUndefined();
    expect(findBlocks(cache, [1, 2])).toHaveLength(1);
    cache.evict(5);
    expect(findBlocks(cache, [1, 2])).toEqual([4]);
    cache.evict(4);
    expect(findBlocks(cache, [1, 2])).toEqual([]);
    expect(cache.numBlocks).toBe(0);
    cache.checkIntegrity();
    // Tokens are lost with the last block that holds them.
    expect(evictions).toEqual([
      [3, 0],
      [5, 0],
      [4, 2],
    ]);
    expect(cache.numEvictions).toBe(3);
  });

  it("takes a block that two tables share twice, but not for two prefixes", () => {
    const { cache } = createCache();
    const node = insertAll(cache, [1, 2], [3]);
    expect(insertAll(cache, [1, 2], [3])).toBe(node);
    expect(cache.numBlocks).toBe(1);
    expect(() => insertAll(cache, [7, 8], [3])).toThrow(/cached twice/);
    expect(() => cache.evict(4)).toThrow(/holds no prefix/);
  });

  it("notices a prefix that outlives its parent", () => {
    const { cache } = createCache();
    insertAll(cache, [1, 2, 3, 4], [0, 1]);
    cache.evict(0);
    expect(() => cache.checkIntegrity()).toThrow(/outlived its parent/);
  });

  it("forgets everything on clear", () => {
    const { cache } = createCache();
    insertAll(cache, [1, 2, 3, 4], [0, 1]);
    cache.clear();
    cache.checkIntegrity();
    expect(cache.numBlocks).toBe(0);
    expect(cache.nodeOf(0)).toBeUndefined();
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
          const { cache } = createCache((...args) => hashTokens(...args) & mask, 64);
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

describe("partial hits", () => {
  const SIZE = 4;

  it("find the block that shares the most leading tokens, full or not", () => {
    const { cache } = createCache(undefined, 16, SIZE);
    const first = keyOf([1, 2, 3, 4, 5, 6, 7, 8]);
    const second = keyOf([1, 2, 3, 4, 5, 6, 9]);
    const root = cache.insert(undefined, first, 0, 0);
    cache.insert(root, first, 1, 1);
    cache.insertTail(root, second, 4, 7, 2);
    cache.checkIntegrity();
    cache.stepId = 2;
    const find = (...tokens: number[]) =>
      cache.findPartial(root, keyOf([1, 2, 3, 4, ...tokens]), 4, 4 + tokens.length);
    expect(find(5, 6, 7, 0)).toEqual({ block: 1, numTokens: 3 });
    expect(find(5, 6, 9, 0)).toEqual({ block: 2, numTokens: 3 });
    expect(find(5, 6, 7, 8)).toEqual({ block: 1, numTokens: 4 });
    expect(find(5, 6)?.numTokens).toBe(2);
    expect(find(5, 0)?.numTokens).toBe(1);
    expect(find(6, 6, 7, 8)).toBeUndefined();
    expect(find()).toBeUndefined();
  });

  it("pass over what this very step writes", () => {
    const { cache } = createCache(undefined, 16, SIZE);
    const old = keyOf([1, 2, 3, 4]);
    cache.insert(undefined, old, 0, 0);
    cache.stepId = 2;
    const young = keyOf([1, 2, 5, 6]);
    cache.insert(undefined, young, 0, 1);
    cache.insert(undefined, keyOf([1, 2, 5, 7]), 0, 2);
    expect(cache.findPartial(undefined, young, 0, 3)).toEqual({ block: 0, numTokens: 2 });
    cache.stepId = 3;
    expect(cache.findPartial(undefined, young, 0, 3)?.numTokens).toBe(3);
  });

  it("take a duplicate that an earlier step wrote", () => {
    const { cache } = createCache(undefined, 16, SIZE);
    const key = keyOf([1, 2, 3, 4]);
    cache.insert(undefined, key, 0, 0);
    cache.stepId = 2;
    cache.insert(undefined, keyOf([1, 2, 3, 4]), 0, 1);
    expect(cache.findPartial(undefined, key, 0, 3)).toEqual({ block: 0, numTokens: 3 });
    cache.evict(0);
    expect(cache.findPartial(undefined, key, 0, 3)).toBeUndefined();
  });

  it("find what a search through all children finds", () => {
    const tokens = fc.array(fc.nat(2), { minLength: 1, maxLength: SIZE });
    fc.assert(
      fc.property(fc.array(tokens, { maxLength: 14 }), tokens, (runs, query) => {
        const { cache } = createCache(undefined, 16, SIZE);
        for (const [block, run] of runs.entries()) {
          if (run.length === SIZE) cache.insert(undefined, keyOf(run), 0, block);
          else cache.insertTail(undefined, keyOf(run), 0, run.length, block);
          cache.checkIntegrity();
        }
        cache.stepId = 2;
        const common = (run: readonly number[]) => {
          const place = query.findIndex((token, i) => run[i] !== token);
          return place < 0 ? query.length : place;
        };
        const best = Math.max(0, ...runs.map(common));
        const found = cache.findPartial(undefined, keyOf(query), 0, query.length);
        expect(found?.numTokens ?? 0).toBe(best);
        if (found !== undefined) expect(common(runs[found.block]!)).toBe(best);
      }),
      { numRuns: 500 },
    );
  });
});

describe("tails", () => {
  const SIZE = 4;

  it("are superseded by what goes on from them", () => {
    const { cache, relisted } = createCache(undefined, 16, SIZE);
    cache.insertTail(undefined, keyOf([1]), 0, 1, 0);
    cache.insertTail(undefined, keyOf([1, 2]), 0, 2, 1);
    expect([0, 1].map((block) => cache.rank(block))).toEqual([
      BLOCK_RANK.superseded,
      BLOCK_RANK.cached,
    ]);
    cache.insertTail(undefined, keyOf([1, 3]), 0, 2, 2);
    cache.insert(undefined, keyOf([1, 2, 3, 4]), 0, 3);
    expect([0, 1, 2, 3].map((block) => cache.rank(block))).toEqual([
      BLOCK_RANK.superseded,
      BLOCK_RANK.superseded,
      BLOCK_RANK.cached,
      BLOCK_RANK.cached,
    ]);
    expect(relisted).toEqual([0, 1]);
    cache.checkIntegrity();
  });

  it("are not cached beside a block that holds them too, which counts as used instead", () => {
    const { cache, relisted } = createCache(undefined, 16, SIZE);
    cache.insert(undefined, keyOf([1, 2, 3, 4]), 0, 3);
    cache.insertTail(undefined, keyOf([1, 2]), 0, 2, 5);
    cache.insertTail(undefined, keyOf([1, 3]), 0, 2, 6);
    cache.insertTail(undefined, keyOf([1, 3]), 0, 2, 7);
    expect(cache.nodeOf(5)).toBeUndefined();
    expect(cache.nodeOf(7)).toBeUndefined();
    expect(relisted).toEqual([3, 6]);
    expect(cache.numBlocks).toBe(2);
    cache.checkIntegrity();
  });

  it("come back from being superseded when a sequence leaves them again", () => {
    const { cache } = createCache(undefined, 16, SIZE);
    cache.insertTail(undefined, keyOf([1, 2]), 0, 2, 0);
    const full = cache.insert(undefined, keyOf([1, 2, 3, 4]), 0, 1);
    cache.setSuperseded(full, true);
    cache.insertTail(undefined, keyOf([1, 2]), 0, 2, 2);
    expect(cache.rank(0)).toBe(BLOCK_RANK.cached);
    expect(cache.rank(2)).toBe(BLOCK_RANK.cached);
    cache.checkIntegrity();
  });

  it("are found by what begins with them", () => {
    const { cache } = createCache(undefined, 16, SIZE);
    cache.insertTail(undefined, keyOf([1, 2]), 0, 2, 0);
    const find = (...tokens: number[]) =>
      cache.findTail(undefined, keyOf(tokens), 0, tokens.length)?.blocks;
    expect(find(1, 2)).toEqual([0]);
    expect(find(1, 2, 3)).toEqual([0]);
    expect(find(1)).toBeUndefined();
    expect(find(1, 1, 3)).toBeUndefined();
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
