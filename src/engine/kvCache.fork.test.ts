import { describe, expect, it } from "vitest";
import type { Sequence } from "./sequence.ts";
import { KvWorld, tokens } from "./testing/kvWorld.ts";

const SIZES = { numBlocks: 10, blockSize: 16 };

/** Goes on from a sequence whose tokens are all computed: one token was sampled. */
function sample(sequence: Sequence, token: number): void {
  sequence.tokens.push(token);
}

describe("copy-on-write", () => {
  /** `n` samples that share a prompt of `length` tokens, as after its last row. */
  function createSamples(world: KvWorld, length: number, n: number): Sequence[] {
    const first = world.create(tokens(length));
    world.admit(first);
    world.compute(first, length);
    const samples = [first];
    for (let index = 1; index < n; index++) {
      const child = world.create(tokens(length), { requestId: 0, index });
      world.kvCache.fork(first, child);
      samples.push(child);
    }
    world.end();
    world.checkIntegrity();
    return samples;
  }

  it("shares every block, also the partly filled one", () => {
    const world = new KvWorld(SIZES);
    const samples = createSamples(world, 20, 4);
    expect(world.kvCache.pool.numUsed).toBe(2);
    for (const { blockTable } of samples) expect(blockTable).toEqual([0, 1]);
    expect(world.kvCache.exclusiveBlocks(samples[0]!)).toBe(0);
    expect(world.kvCache.recomputeTokens(samples[0]!)).toBe(0);
  });

  it("gives each writer a copy of its own and lets the last holder write in place", () => {
    const world = new KvWorld(SIZES);
    const samples = createSamples(world, 20, 4);
    for (const [i, sequence] of samples.entries()) {
      sequence.numSentBlocks = 2;
      sample(sequence, 100 + i);
      expect(world.compute(sequence, 1)).toBe(true);
    }
    expect(samples.map(({ blockTable }) => blockTable)).toEqual([
      [0, 2],
      [0, 3],
      [0, 4],
      [0, 1],
    ]);
    expect(samples.map(({ numSentBlocks }) => numSentBlocks)).toEqual([1, 1, 1, 2]);
    world.checkIntegrity();
    world.end();
    expect(world.numCopies).toBe(3);
    world.checkContents();
    expect(world.kvCache.exclusiveBlocks(samples[0]!)).toBe(1);
    expect(world.kvCache.recomputeTokens(samples[0]!)).toBe(5);
  });

  it("costs n samples no more than floor(P / B) + n * ceil((P mod B + out) / B) blocks", () => {
    for (const length of [31, 32, 33]) {
      const world = new KvWorld({ numBlocks: 40, blockSize: 16 });
      const samples = createSamples(world, length, 4);
      const numOutput = 20;
      for (let step = 0; step < numOutput; step++) {
        for (const [i, sequence] of samples.entries()) {
          sample(sequence, 100 * i + step);
          world.compute(sequence, 1);
        }
        world.end();
      }
      world.checkContents();
      const bound = Math.floor(length / 16) + 4 * Math.ceil(((length % 16) + numOutput) / 16);
      expect(world.kvCache.pool.peakUsed).toBeLessThanOrEqual(bound);
    }
  });

  it("copies nothing where nothing is computed: a shared block that is empty is replaced", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const first = world.create(tokens(4));
    world.admit(first);
    world.compute(first, 4);
    world.kvCache.reserve(first, 4); // for drafts
    const second = world.create(tokens(4));
    world.kvCache.fork(first, second);
    world.end();
    sample(first, 50);
    world.compute(first, 1);
    world.end();
    expect(world.numCopies).toBe(0);
    expect(first.blockTable[1]).not.toBe(second.blockTable[1]);
    world.checkContents();
  });

  it("changes nothing if there is no block for the copy", () => {
    const world = new KvWorld({ numBlocks: 2, blockSize: 16 });
    const [first, second] = createSamples(world, 20, 2);
    sample(first!, 50);
    expect(world.compute(first!, 1)).toBe(false);
    expect(first!.blockTable).toEqual([0, 1]);
    world.finish(second!);
    expect(world.compute(first!, 1)).toBe(true);
    expect(first!.blockTable).toEqual([0, 1]);
    world.end();
    expect(world.numCopies).toBe(0);
  });

  it("leaves the source to its last holder if that one leaves in the same step", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    const [first, second] = createSamples(world, 6, 2);
    sample(first!, 50);
    world.compute(first!, 1);
    world.release(second!);
    const other = world.create(tokens(4, 80));
    world.admit(other);
    expect(other.blockTable).not.toContain(1);
    world.compute(other, 4);
    world.end();
    expect(world.numCopies).toBe(1);
    world.checkContents();
    world.checkIntegrity();
  });

  it("caches what each sample left behind, and shared blocks once", () => {
    const world = new KvWorld(SIZES);
    const samples = createSamples(world, 20, 3);
    for (const [i, sequence] of samples.entries()) {
      for (let step = 0; step < 14; step++) {
        sample(sequence, 100 * (i + 1) + step);
        world.compute(sequence, 1);
        world.end();
      }
    }
    for (const sequence of samples) world.finish(sequence);
    world.checkIntegrity();
    for (const { tokens } of samples) expect(world.visit([...tokens, 9])).toBe(1);
  });

  it("forks a beam into a sequence that held and hashed other blocks before", () => {
    const world = new KvWorld({ numBlocks: 10, blockSize: 4 });
    const [first, second] = createSamples(world, 6, 2);
    const advance = (token: number) => {
      for (const [i, sequence] of [first!, second!].entries()) {
        sample(sequence, token + i);
        expect(world.compute(sequence, 1)).toBe(true);
      }
      world.end();
    };
    for (const token of [50, 60, 70]) advance(token);
    expect(second!.numHashedBlocks).toBe(2);
    world.kvCache.release(second!);
    second!.tokens.length = 0;
    second!.tokens.push(...first!.tokens);
    world.kvCache.fork(first!, second!);
    for (const token of [80, 90, 100]) advance(token);
    expect(second!.numHashedBlocks).toBe(3);
    world.checkContents();
    world.checkIntegrity();
    world.finish(second!);
    expect(world.visit([...second!.tokens, 5])).toBe(1);
  });
});

describe("drafts", () => {
  it("that are rejected give their blocks back, and nothing of them is cached", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const sequence = world.create(tokens(3));
    world.run(sequence);
    sample(sequence, 50);
    sequence.numSentBlocks = 1;
    world.compute(sequence, 1, 6, 1);
    expect(sequence.blockTable).toHaveLength(3);
    sequence.numSentBlocks = 3;
    world.end();
    // The draft that was right, and a token more.
    sample(sequence, (sequence.arrival * 7 + 16) % 3);
    sample(sequence, 60);
    world.kvCache.truncate(sequence, 5);
    expect(sequence.blockTable).toHaveLength(2);
    expect(sequence.numSentBlocks).toBe(2);
    world.kvCache.cacheFullBlocks(sequence);
    expect(world.kvCache.numCachedBlocks).toBe(1);
    world.checkContents();
    world.checkIntegrity();
    world.compute(sequence, 1);
    world.end();
    world.checkContents();
  });

  it("cannot take back what is cached", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const sequence = world.create(tokens(6));
    world.run(sequence);
    expect(() => world.kvCache.truncate(sequence, 3)).toThrow(/are cut to 3/);
    expect(() => world.kvCache.truncate(sequence, 7)).toThrow(/are cut to 7/);
  });
});
