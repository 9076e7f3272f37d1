import { describe, expect, it } from "vitest";
import { HostBlocks } from "./hostBlocks.ts";
import { KvWorld, tokens } from "./testing/kvWorld.ts";

const SIZES = { numBlocks: 4, blockSize: 4, numHostBlocks: 4 };

describe("swapping", () => {
  it("brings back what was swapped out, into other blocks", () => {
    const world = new KvWorld(SIZES);
    const sequence = world.create(tokens(10));
    world.run(sequence);
    sequence.tokens.push(50);
    expect(world.swapOut(sequence)).toBe(true);
    expect(sequence.blockTable).toEqual([]);
    expect(sequence.swapped).toMatchObject({ blocks: [0, 1, 2], numComputedTokens: 10 });
    world.end();
    world.checkContents();
    world.visit(tokens(16, 100)); // takes the whole pool
    expect(world.swapIn(sequence)).toBe(true);
    expect(sequence.numComputedTokens).toBe(10);
    expect(sequence.numMissingTokens).toBe(1);
    expect(sequence.numHashedBlocks).toBe(2); // others may share them at once
    world.compute(sequence, 1);
    world.end();
    world.checkContents();
    world.checkIntegrity();
    expect(world.hostBlocks.numFree).toBe(4);
  });

  it("takes by reference what is cached still, and swaps in only the rest", () => {
    const world = new KvWorld(SIZES);
    const sequence = world.create(tokens(10));
    world.run(sequence);
    sequence.tokens.push(50);
    world.swapOut(sequence);
    world.end();
    world.begin();
    const swaps = world.kvCache.swapIn(sequence);
    expect(swaps).toEqual([{ block: expect.any(Number), hostBlock: 2 }]);
    expect(sequence.blockTable.slice(0, 2)).toEqual([0, 1]);
    world.checkIntegrity();
  });

  it("computes the last token again, whose sample is void", () => {
    const world = new KvWorld(SIZES);
    const sequence = world.create(tokens(8));
    world.run(sequence);
    world.swapOut(sequence);
    expect(sequence.swapped!.numComputedTokens).toBe(7);
    world.end();
    world.visit(tokens(16, 100));
    expect(world.swapIn(sequence)).toBe(true);
    world.compute(sequence, 1);
    world.end();
    world.checkContents();
  });

  it("changes nothing if the host has no room, or the pool", () => {
    const world = new KvWorld({ ...SIZES, numHostBlocks: 2 });
    const large = world.create(tokens(10));
    world.run(large);
    expect(world.swapOut(large)).toBe(false);
    expect(large.blockTable).toHaveLength(3);
    world.finish(large);
    const small = world.create(tokens(6, 50));
    world.run(small);
    expect(world.swapOut(small)).toBe(true);
    world.end();
    const holder = world.create(tokens(9, 100));
    world.run(holder);
    expect(world.swapIn(small)).toBe(false);
    expect(small.swapped?.blocks).toEqual([0, 1]);
    expect(small.blockTable).toEqual([]);
    world.checkIntegrity();
  });

  it("leaves a sequence alone that waits for a copy, or has nothing computed", () => {
    const world = new KvWorld(SIZES);
    world.visit(tokens(4));
    const sequence = world.create([0, 1, 2, 9]);
    world.admit(sequence);
    expect(world.swapOut(sequence)).toBe(false);
    const other = world.create(tokens(4, 50));
    world.admit(other);
    expect(world.swapOut(other)).toBe(false);
    world.checkIntegrity();
  });

  it("leaves a sequence alone that shares what another computes in this very step", () => {
    const world = new KvWorld(SIZES);
    const writer = world.create(tokens(4));
    world.admit(writer);
    const reader = world.create(tokens(5));
    world.compute(writer, 4);
    world.admit(reader);
    expect(reader.numComputedTokens).toBe(4);
    expect(world.swapOut(reader)).toBe(false);
    world.end();
    expect(world.swapOut(reader)).toBe(true);
    world.end();
    world.checkContents();
    world.checkIntegrity();
  });

  it("frees the host's blocks when the sequence ends", () => {
    const world = new KvWorld(SIZES);
    const sequence = world.create(tokens(9));
    world.run(sequence);
    world.swapOut(sequence);
    world.finish(sequence);
    expect(world.hostBlocks.numFree).toBe(4);
    world.end();
    world.checkIntegrity();
  });

  it("survives the loss of the pool", () => {
    const world = new KvWorld(SIZES);
    const sequence = world.create(tokens(9));
    world.run(sequence);
    world.swapOut(sequence);
    world.end();
    world.kvCache.clear();
    expect(world.swapIn(sequence)).toBe(true);
    world.compute(sequence, 1);
    world.end();
    world.checkContents();
  });
});

describe("HostBlocks", () => {
  it("gives out all or nothing", () => {
    const blocks = new HostBlocks(3);
    expect(blocks.allocate(4, 1)).toBeUndefined();
    expect(blocks.numFree).toBe(3);
    expect(blocks.allocate(2, 1)).toEqual([0, 1]);
    expect(blocks.allocate(2, 1)).toBeUndefined();
    expect(blocks.allocate(0, 1)).toEqual([]);
  });

  it("gives out what was released in later steps only", () => {
    const blocks = new HostBlocks(3);
    blocks.release(blocks.allocate(2, 1)!, 2);
    expect(blocks.allocate(2, 2)).toBeUndefined();
    const other = blocks.allocate(1, 2)!;
    expect(other).toEqual([2]);
    blocks.release(other, 2);
    expect(blocks.allocate(1, 2)).toBeUndefined();
    expect(blocks.allocate(3, 3)?.toSorted()).toEqual([0, 1, 2]);
  });

  it("notices a block that is released twice, lost or held twice", () => {
    const blocks = new HostBlocks(2);
    const held = blocks.allocate(1, 1)!;
    const swapped = { hostBlocks: blocks, blocks: held, numComputedTokens: 1, stepId: 1 };
    blocks.checkIntegrity([{ swapped }, { swapped: undefined }]);
    expect(() => blocks.checkIntegrity([])).toThrow(/0 times/);
    expect(() => blocks.checkIntegrity([{ swapped }, { swapped }])).toThrow(/2 times/);
    blocks.release(held, 1);
    expect(() => blocks.release(held, 1)).toThrow(/nobody holds/);
  });
});
