import { describe, expect, it } from "vitest";
import type { Sequence } from "./sequence.ts";
import { KvWorld, tokens } from "./testing/kvWorld.ts";

const SIZES = { numBlocks: 10, blockSize: 16 };

/** Goes on from a sequence whose tokens are all computed: one token was sampled. */
function sample(sequence: Sequence, token: number): void {
  sequence.tokens.push(token);
}

function freeBlocks(world: KvWorld): number[] {
  return world.kvCache.pool.freeBlocks();
}

describe("admission", () => {
  it("shares the full blocks of a cached prefix and gives new ones for the rest", () => {
    const world = new KvWorld(SIZES);
    const prompt = tokens(55);
    const first = world.create(prompt);
    world.run(first);
    expect(first.blockTable).toEqual([0, 1, 2, 3]);
    expect(first.numHashedBlocks).toBe(3);
    const second = world.create([...tokens(48), ...tokens(7, 900)]);
    expect(world.run(second)).toBe(7);
    expect(second.blockTable).toEqual([0, 1, 2, 4]);
    expect(world.kvCache.pool.refCount(0)).toBe(2);
    world.finish(first);
    world.finish(second);
    // Never used, then what is cached, last block first; the two tails are cached too.
    expect(freeBlocks(world)).toEqual([5, 6, 7, 8, 9, 3, 4, 2, 1, 0]);
    const third = world.create(tokens(160, 5000));
    world.run(third);
    expect(third.blockTable).toEqual([5, 6, 7, 8, 9, 3, 4, 2, 1, 0]);
    expect(freeBlocks(world)).toEqual([]);
    expect(world.evictions).toEqual([
      [3, 7],
      [4, 7],
      [2, 16],
      [1, 16],
      [0, 16],
    ]);
    expect(world.kvCache.numEvictions).toBe(5);
  });

  it("finds nothing of what was evicted", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    world.visit(tokens(8));
    world.visit(tokens(15, 100));
    expect(world.visit(tokens(8))).toBe(8);
  });

  it("evicts the chain that was used longest ago, from its end", () => {
    const world = new KvWorld({ numBlocks: 6, blockSize: 4 });
    world.visit(tokens(9));
    world.visit(tokens(9, 100));
    world.visit(tokens(9)); // used again
    world.visit(tokens(8, 200));
    expect(world.kvCache.cachedTokens(world.create(tokens(9)))).toBe(8);
    expect(world.kvCache.cachedTokens(world.create(tokens(9, 100)))).toBeLessThan(8);
  });

  it("keeps one of equal blocks when nobody holds them, as used by the last of their holders", () => {
    const world = new KvWorld({ numBlocks: 6, blockSize: 4 });
    world.visit(tokens(4));
    world.visit(tokens(4, 50));
    const holder = world.create(tokens(4), { promptLogprobs: 0 }); // computes all by itself
    world.run(holder);
    expect(world.kvCache.numCachedBlocks).toBe(2);
    const second = world.create(tokens(4), { promptLogprobs: 0 });
    world.run(second);
    expect(world.kvCache.numCachedBlocks).toBe(3);
    world.finish(second);
    expect(world.kvCache.numCachedBlocks).toBe(2);
    world.finish(holder);
    expect(world.kvCache.numCachedBlocks).toBe(2);
    world.visit(tokens(20, 100));
    expect(world.kvCache.cachedTokens(world.create(tokens(5)))).toBe(4);
    expect(world.kvCache.cachedTokens(world.create(tokens(5, 50)))).toBe(0);
  });

  it("does not evict the blocks that it hits", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    world.visit(tokens(13)); // fills the pool
    const longer = world.create([...tokens(8), ...tokens(8, 50)]);
    expect(world.run(longer)).toBe(8);
    expect(longer.blockTable.slice(0, 2)).toEqual([0, 1]);
  });

  it("counts hits that nobody holds as taken, and changes nothing when blocks are missing", () => {
    const world = new KvWorld({ numBlocks: 5, blockSize: 4 });
    world.visit(tokens(9)); // 2 full blocks and a tail
    const holder = world.create(tokens(4, 100));
    world.run(holder);
    // Needs the two cached blocks and three new ones; four are free.
    const late = world.create([...tokens(8), ...tokens(9, 50)]);
    expect(world.admit(late)).toBe(false);
    expect(world.kvCache.pool.refCount(0)).toBe(0);
    expect(world.kvCache.cachedTokens(late)).toBe(8);
    world.finish(holder);
    expect(world.run(late)).toBe(9);
  });

  it("gives blocks for the whole prompt or none", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    expect(world.admit(world.create(tokens(17)))).toBe(false);
    const fits = world.create(tokens(16));
    expect(world.admit(fits)).toBe(true);
    expect(fits.blockTable).toHaveLength(4);
  });

  it("leaves the reserve free", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    const sequence = world.create(tokens(10));
    expect(world.admit(sequence, 2)).toBe(false);
    expect(world.admit(sequence, 1)).toBe(true);
    expect(world.kvCache.pool.numFree).toBe(1);
  });

  it("lets equal prompts of one step share their full blocks", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const first = world.create(tokens(10));
    const second = world.create(tokens(10));
    world.admit(first);
    world.compute(first, 10);
    expect(world.admit(second)).toBe(true);
    expect(second.numMissingTokens).toBe(2);
    world.compute(second, 2);
    world.end();
    world.checkContents();
    expect(world.numCopies).toBe(0); // the partial block was not written yet
  });

  it("does not use the cache where prompt scores are wanted, and fills it still", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    world.visit(tokens(8));
    expect(world.visit(tokens(8), { promptLogprobs: 0 })).toBe(8);
    expect(world.visit(tokens(9))).toBe(1);
  });

  it("keeps salts and adapters apart", () => {
    const world = new KvWorld({ numBlocks: 20, blockSize: 4 });
    expect(world.visit(tokens(9))).toBe(9);
    expect(world.visit(tokens(9), { salt: "a" })).toBe(9);
    expect(world.visit(tokens(9), { adapterId: "a" })).toBe(9);
    expect(world.visit(tokens(9), { salt: "a" })).toBe(1);
    expect(world.visit(tokens(9), { adapterId: "a" })).toBe(1);
    expect(world.visit(tokens(9))).toBe(1);
  });

  it("allocates and caches nothing inside a block, and one of each when it is crossed", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const sequence = world.create(tokens(2));
    world.run(sequence);
    const seen: unknown[] = [];
    for (let token = 50; token < 54; token++) {
      sample(sequence, token);
      world.compute(sequence, 1);
      world.end();
      seen.push([sequence.blockTable.length, world.kvCache.numCachedBlocks]);
    }
    expect(seen).toEqual([
      [1, 0],
      [1, 1],
      [2, 1],
      [2, 1],
    ]);
    world.checkContents();
  });

  it("caches full blocks only as far as their tokens are known", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const sequence = world.create(tokens(3));
    world.run(sequence);
    sequence.numPendingTokens = 2;
    world.compute(sequence, 2);
    world.end();
    expect(world.kvCache.numCachedBlocks).toBe(0);
    sample(sequence, 9);
    sequence.numPendingTokens = 1;
    world.kvCache.cacheFullBlocks(sequence);
    expect(world.kvCache.numCachedBlocks).toBe(1);
    world.checkIntegrity();
  });

  it("hashes the blocks of a sequence that waits once", () => {
    let numHashed = 0;
    const world = new KvWorld({ numBlocks: 4, blockSize: 4, hash: () => (numHashed += 1) });
    const holder = world.create(tokens(8));
    world.run(holder);
    const waiting = world.create([...tokens(8), ...tokens(6, 50)]);
    expect(world.admit(waiting)).toBe(false);
    numHashed = 0;
    for (let i = 0; i < 5; i++) expect(world.admit(waiting)).toBe(false);
    expect(numHashed).toBe(0);
  });
});

describe("partial hits", () => {
  it("do not count as used where they are only copied from", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    world.visit(tokens(7));
    expect(world.kvCache.pool.peakUsed).toBe(2);
    expect(world.visit(tokens(7))).toBe(1);
    expect(world.kvCache.pool.peakUsed).toBe(2);
  });

  it("copy a partly equal block and leave the rest to be computed", () => {
    const world = new KvWorld(SIZES);
    world.visit(tokens(48));
    expect(world.visit([...tokens(40), ...tokens(8, 900)])).toBe(8);
    expect(world.numCopies).toBe(1);
    expect(world.kvCache.partialHitTokens).toBe(8);
  });

  it("leave one token of a prompt that is cached entirely", () => {
    for (const length of [32, 31, 17, 2]) {
      const world = new KvWorld(SIZES);
      world.visit(tokens(length));
      expect(world.visit(tokens(length))).toBe(1);
    }
  });

  it("find all of the last turn, whose last block was not full", () => {
    const world = new KvWorld(SIZES);
    const turn = world.create(tokens(20));
    world.run(turn);
    for (const token of [70, 71, 72]) {
      sample(turn, token);
      world.compute(turn, 1);
      world.end();
    }
    sample(turn, 73); // sampled, not computed
    world.finish(turn);
    expect(world.visit([...turn.tokens, 80, 81])).toBe(3);
    expect(world.numCopies).toBe(1);
  });

  it("survive preemption: only the token that was not computed is left", () => {
    const world = new KvWorld(SIZES);
    const sequence = world.create(tokens(20));
    world.run(sequence);
    sample(sequence, 70);
    world.release(sequence);
    expect(world.run(sequence)).toBe(1);
  });

  it("are not made from what the same step writes", () => {
    const world = new KvWorld(SIZES);
    const first = world.create(tokens(16));
    world.admit(first);
    world.compute(first, 16);
    const second = world.create([...tokens(10), 99]);
    world.admit(second);
    expect(second.numComputedTokens).toBe(0);
    world.compute(second, 11);
    world.end();
    const third = world.create([...tokens(10), 98]);
    expect(world.run(third)).toBe(1);
  });

  it("are done without where holding the source would leave too few blocks", () => {
    const world = new KvWorld({ numBlocks: 2, blockSize: 4 });
    world.visit(tokens(4));
    const sequence = world.create([...tokens(3), ...tokens(5, 50)]);
    expect(world.run(sequence)).toBe(8);
    expect(world.kvCache.partialHitTokens).toBe(0);
  });

  it("hold their source until the step is complete and no longer", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    world.visit(tokens(4));
    const sequence = world.create([0, 1, 2, 9]);
    world.admit(sequence);
    expect(world.kvCache.pool.numUsed).toBe(2);
    world.checkIntegrity();
    world.compute(sequence, 1);
    world.end();
    expect(world.kvCache.pool.numUsed).toBe(1);
    world.checkContents();
  });

  it("come to nothing if the sequence leaves before the step is complete", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    world.visit(tokens(4));
    const sequence = world.create([0, 1, 2, 9]);
    world.admit(sequence);
    world.release(sequence);
    expect(world.kvCache.pool.numUsed).toBe(0);
    world.end();
    expect(world.numCopies).toBe(0);
    // What was not copied is not cached either.
    expect(world.kvCache.numCachedBlocks).toBe(1);
    expect(world.run(sequence)).toBe(1);
  });

  it("come to nothing also where nobody else would ask for the source", () => {
    const world = new KvWorld({ numBlocks: 6, blockSize: 4 });
    for (const first of [0, 50]) {
      const turn = world.create(tokens(4, first));
      world.kvCache.noteSession("a", turn);
      world.run(turn);
      world.finish(turn);
    }
    const sequence = world.create([0, 1, 2, 9]);
    world.admit(sequence);
    expect(sequence.numComputedTokens).toBe(3);
    world.release(sequence);
    expect(world.kvCache.numCachedBlocks).toBe(2);
    world.end();
    expect(world.run(sequence)).toBe(1);
  });

  it("do not outlive a reset", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    const sequence = world.create(tokens(7));
    world.run(sequence);
    expect(world.kvCache.resetPrefixes()).toBe(false);
    expect(world.kvCache.numCachedBlocks).toBe(1);
    expect(() => world.kvCache.clear()).toThrow(/while sequences hold blocks/);
    world.finish(sequence);
    expect(world.kvCache.resetPrefixes()).toBe(true);
    expect(world.kvCache.numCachedBlocks).toBe(0);
    expect(freeBlocks(world)).toEqual([0, 1, 2, 3]);
    expect(world.visit(tokens(7))).toBe(7);
  });
});
