import { describe, expect, it } from "vitest";
import { MAX_SESSIONS } from "./sessions.ts";
import { KvWorld, type SequenceFields, tokens } from "./testing/kvWorld.ts";

/** A request that comes and goes, kept and as a turn of a session if asked. */
function visit(
  world: KvWorld,
  prompt: readonly number[],
  options: SequenceFields & { ttlMs?: number; session?: string; output?: number } = {},
): number[] {
  const sequence = world.create(prompt, options);
  expect(world.admit(sequence)).toBe(true);
  if (options.session !== undefined) world.kvCache.noteSession(options.session, sequence);
  world.compute(sequence, sequence.numMissingTokens);
  world.end();
  for (let i = 0; i < (options.output ?? 0); i++) {
    sequence.tokens.push(7000 + i);
    world.compute(sequence, 1);
    world.end();
  }
  if (options.ttlMs !== undefined) world.kvCache.keep(sequence, options.ttlMs, options.session);
  world.finish(sequence);
  world.checkIntegrity();
  return sequence.tokens;
}

function cachedTokens(world: KvWorld, prompt: readonly number[]): number {
  const sequence = world.create([...prompt, 9999]);
  world.begin();
  const numTokens = world.kvCache.cachedTokens(sequence);
  world.finish(sequence);
  return numTokens;
}

/** Other work that takes every block that is free. */
function flood(world: KvWorld, numBlocks: number, first = 100_000): void {
  visit(world, tokens(4 * numBlocks, first));
}

describe("kept prefixes", () => {
  it("are evicted after all others", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    visit(world, tokens(9), { ttlMs: Number.POSITIVE_INFINITY });
    visit(world, tokens(8, 50));
    expect(world.kvCache.numKeptBlocks).toBe(2);
    flood(world, 6);
    expect(cachedTokens(world, tokens(9))).toBe(8);
    flood(world, 6, 200_000);
    expect(cachedTokens(world, tokens(9))).toBe(8);
  });

  it("are evicted when nothing else is left, from the end, and kept up to there", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    visit(world, tokens(12), { ttlMs: Number.POSITIVE_INFINITY });
    flood(world, 6);
    expect(cachedTokens(world, tokens(12))).toBe(8);
    expect(world.kvCache.numKeptBlocks).toBe(2);
    flood(world, 8);
    expect(cachedTokens(world, tokens(12))).toBe(0);
    expect(world.kvCache.numKeptBlocks).toBe(0);
    world.checkIntegrity();
  });

  it("are the prompt's full blocks, not the answer's", () => {
    const world = new KvWorld({ numBlocks: 12, blockSize: 4 });
    const all = visit(world, tokens(6), { ttlMs: Number.POSITIVE_INFINITY, output: 8 });
    expect(world.kvCache.numKeptBlocks).toBe(1);
    flood(world, 11);
    expect(cachedTokens(world, all)).toBe(4);
  });

  it("expire some time after their last use", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    visit(world, tokens(8), { ttlMs: 10 });
    world.clockMs = 9;
    visit(world, [...tokens(8), 50]); // used by another
    world.clockMs = 18;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(2);
    world.clockMs = 19;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(0);
    // Cached as any other, and evicted from its end.
    expect(cachedTokens(world, tokens(8))).toBe(8);
    flood(world, 7);
    expect(cachedTokens(world, tokens(8))).toBe(4);
  });

  it("do not expire while somebody holds them", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    visit(world, tokens(8), { ttlMs: 10 });
    const holder = world.create(tokens(9));
    world.run(holder);
    world.clockMs = 100;
    world.end();
    world.clockMs = 105;
    world.finish(holder);
    world.clockMs = 114;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(2);
    world.clockMs = 115;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(0);
  });

  it("take at most half of the pool: the one used longest ago is shortened", () => {
    const world = new KvWorld({ numBlocks: 12, blockSize: 4 });
    const keep = { ttlMs: Number.POSITIVE_INFINITY };
    visit(world, tokens(16), keep);
    visit(world, tokens(12, 50), keep);
    expect(world.kvCache.numKeptBlocks).toBe(6);
    visit(world, [...tokens(16), 90]); // used again
    visit(world, tokens(4, 70), keep);
    expect(world.kvCache.numKeptBlocks).toBe(6);
    flood(world, 6);
    expect(cachedTokens(world, tokens(16))).toBe(12);
    expect(cachedTokens(world, tokens(12, 50))).toBe(8);
    expect(cachedTokens(world, tokens(4, 70))).toBe(4);
  });

  it("are not shortened while they are in use, which would free nothing", () => {
    const world = new KvWorld({ numBlocks: 20, blockSize: 4 });
    const keep = { ttlMs: Number.POSITIVE_INFINITY };
    const running = world.create(tokens(16));
    world.run(running);
    world.kvCache.keep(running, keep.ttlMs);
    for (const first of [100, 200, 300]) visit(world, tokens(16, first), keep);
    expect(world.kvCache.numKeptBlocks).toBe(10);
    world.finish(running);
    expect(world.kvCache.numKeptBlocks).toBe(10);
    flood(world, 10);
    // The one used longest ago gave way, and half of the next.
    expect([100, 200, 300].map((first) => cachedTokens(world, tokens(16, first)))).toEqual([
      0, 8, 16,
    ]);
    expect(cachedTokens(world, tokens(16))).toBe(16);
  });

  it("are not shortened onto one that is kept for itself", () => {
    const world = new KvWorld({ numBlocks: 4, blockSize: 4 });
    const keep = { ttlMs: Number.POSITIVE_INFINITY };
    visit(world, tokens(8), keep);
    visit(world, tokens(4), { ttlMs: 10 });
    visit(world, tokens(4, 50), keep);
    expect(world.kvCache.numKeptBlocks).toBe(2);
    world.clockMs = 10;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(1);
    world.checkIntegrity();
  });

  it("stay under the cap when a copy lets go of its source", () => {
    const world = new KvWorld({ numBlocks: 10, blockSize: 4 });
    visit(world, tokens(4), { ttlMs: Number.POSITIVE_INFINITY });
    const large = world.create(tokens(20, 50));
    world.run(large);
    world.kvCache.keep(large, Number.POSITIVE_INFINITY);
    const copying = world.create([0, 1, 2, 9]);
    world.admit(copying);
    world.finish(large);
    expect(world.kvCache.numKeptBlocks).toBe(5);
    world.compute(copying, 1);
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(5);
    world.checkIntegrity();
  });

  it("share what they have in common, and each keeps it", () => {
    const world = new KvWorld({ numBlocks: 16, blockSize: 4 });
    visit(world, [...tokens(8), ...tokens(4, 50)], { ttlMs: 10 });
    visit(world, [...tokens(8), ...tokens(4, 60)], { ttlMs: 20 });
    expect(world.kvCache.numKeptBlocks).toBe(4);
    world.clockMs = 10;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(3);
    world.clockMs = 20;
    world.end();
    expect(world.kvCache.numKeptBlocks).toBe(0);
  });

  it("are kept until the last session that asked ends, or without end if somebody without one did", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    const ttlMs = Number.POSITIVE_INFINITY;
    visit(world, tokens(8), { ttlMs, session: "a" });
    visit(world, tokens(8), { ttlMs, session: "b" });
    world.kvCache.endSession("a");
    expect(world.kvCache.numKeptBlocks).toBe(2);
    world.kvCache.endSession("b");
    expect(world.kvCache.numKeptBlocks).toBe(0);
    visit(world, tokens(8), { ttlMs });
    visit(world, tokens(8), { ttlMs, session: "c" });
    world.kvCache.endSession("c");
    expect(world.kvCache.numKeptBlocks).toBe(2);
    world.checkIntegrity();
  });

  it("of a session are the last that it asked for", () => {
    const world = new KvWorld({ numBlocks: 16, blockSize: 4 });
    const options = { ttlMs: Number.POSITIVE_INFINITY, session: "a" };
    visit(world, tokens(8), options);
    visit(world, tokens(12), options);
    expect(world.kvCache.numKeptBlocks).toBe(3);
    visit(world, tokens(4, 50), options);
    expect(world.kvCache.numKeptBlocks).toBe(1);
    world.checkIntegrity();
  });

  it("are forgotten with everything else", () => {
    const world = new KvWorld({ numBlocks: 8, blockSize: 4 });
    visit(world, tokens(8), { ttlMs: 10, session: "a" });
    expect(world.kvCache.resetPrefixes()).toBe(true);
    expect(world.kvCache.numKeptBlocks).toBe(0);
    world.clockMs = 100;
    world.end();
    world.kvCache.endSession("a");
    world.checkIntegrity();
  });
});

describe("sessions", () => {
  const SIZES = { numBlocks: 12, blockSize: 4 };

  it("have the branch that an edited turn leaves evicted first, from its end", () => {
    const world = new KvWorld(SIZES);
    const first = visit(world, tokens(8), { session: "a", output: 8 });
    visit(world, tokens(8, 50)); // older than the edit, and wanted
    const edited = [...tokens(4), ...tokens(5, 80)];
    visit(world, edited, { session: "a" });
    const unused = 12 - Math.ceil(16 / 4) - 2 - 2;
    flood(world, unused + 3);
    // The common block, the other chat and the new branch are there.
    expect(cachedTokens(world, tokens(8, 50))).toBe(8);
    expect(cachedTokens(world, edited)).toBe(9);
    expect(cachedTokens(world, first)).toBe(4);
  });

  it("lose nothing when a turn goes on from the one before", () => {
    const world = new KvWorld(SIZES);
    const first = visit(world, tokens(8), { session: "a", output: 4 });
    const before = world.kvCache.pool.freeBlocks();
    visit(world, [...first, 50], { session: "a" });
    expect(world.kvCache.pool.freeBlocks().slice(-3)).toEqual(before.slice(-3));
    expect(cachedTokens(world, first)).toBe(12);
  });

  it("leave alone what another conversation continues, holds or keeps", () => {
    const world = new KvWorld(SIZES);
    visit(world, tokens(12), { session: "a" });
    visit(world, [...tokens(12), ...tokens(4, 50)]); // another goes on from here
    visit(world, tokens(4, 80), { session: "a" });
    flood(world, 12 - 5 + 1);
    expect(cachedTokens(world, tokens(12))).toBe(12);
  });

  it("supersede a branch that is still being written when its last sequence lets go", () => {
    const world = new KvWorld(SIZES);
    const old = world.create(tokens(8));
    world.admit(old);
    world.kvCache.noteSession("a", old);
    world.compute(old, 8);
    world.end();
    visit(world, [...tokens(4), ...tokens(4, 80)], { session: "a" });
    world.finish(old);
    visit(world, tokens(4, 50));
    world.checkIntegrity();
    flood(world, 12 - 3);
    expect(cachedTokens(world, tokens(8))).toBe(4);
    expect(cachedTokens(world, [...tokens(4), ...tokens(4, 80)])).toBe(8);
    expect(cachedTokens(world, tokens(4, 50))).toBe(4);
  });

  it("take all samples of a request for one turn", () => {
    const world = new KvWorld(SIZES);
    const branches = [60, 70].map((first) => [...tokens(4), ...tokens(4, first)]);
    for (const [index, branch] of branches.entries()) {
      visit(world, branch, { session: "a", requestId: 78, index });
    }
    visit(world, tokens(8, 50));
    visit(world, tokens(9), { session: "a" });
    flood(world, 12 - 5);
    for (const branch of branches) expect(cachedTokens(world, branch)).toBe(4);
    expect(cachedTokens(world, tokens(8, 50))).toBe(8);
    expect(cachedTokens(world, tokens(9))).toBe(9);
  });

  it("do not pass their samples by: a second sample does not supersede the first", () => {
    const world = new KvWorld(SIZES);
    visit(world, tokens(4, 50)); // older than both, and evicted first
    for (const [index, first] of [60, 70].entries()) {
      visit(world, [...tokens(4), ...tokens(4, first)], { session: "a", requestId: 77, index });
    }
    flood(world, 12 - 3);
    expect(cachedTokens(world, tokens(4, 50))).toBe(0);
    for (const first of [60, 70]) {
      expect(cachedTokens(world, [...tokens(4), ...tokens(4, first)])).toBe(8);
    }
  });

  it("leave a turn alone that shares nothing with the next because its scope is another", () => {
    const world = new KvWorld(SIZES);
    visit(world, tokens(4, 50)); // older, and evicted first
    visit(world, tokens(8), { session: "a" });
    visit(world, tokens(8, 80), { session: "a", salt: "b" });
    flood(world, 12 - 4);
    expect(cachedTokens(world, tokens(4, 50))).toBe(0);
    expect(cachedTokens(world, tokens(8))).toBe(8);
  });

  it("use a superseded branch again as any other when it is taken up", () => {
    const world = new KvWorld(SIZES);
    visit(world, tokens(8), { session: "a" });
    visit(world, tokens(8, 50), { session: "a" });
    expect(world.visit([...tokens(8), 90])).toBe(1);
    flood(world, 12 - 5);
    expect(cachedTokens(world, tokens(8))).toBe(8);
    world.checkIntegrity();
  });

  it("give up everything of their last turn when they end", () => {
    const world = new KvWorld(SIZES);
    visit(world, tokens(8), { session: "a", ttlMs: Number.POSITIVE_INFINITY });
    visit(world, tokens(8, 50));
    world.kvCache.endSession("a");
    world.kvCache.endSession("a"); // idempotent
    world.kvCache.endSession("unknown");
    flood(world, 12 - 2);
    expect(cachedTokens(world, tokens(8))).toBe(0);
    expect(cachedTokens(world, tokens(8, 50))).toBe(8);
  });

  it("are forgotten, oldest first, past their number, and keep nothing then", () => {
    const world = new KvWorld(SIZES);
    visit(world, tokens(8), { session: "a", ttlMs: Number.POSITIVE_INFINITY });
    const other = world.create(tokens(4, 50));
    for (let i = 0; i < MAX_SESSIONS - 1; i++) world.kvCache.noteSession(`${i}`, other);
    expect(world.kvCache.numKeptBlocks).toBe(2);
    world.kvCache.noteSession("one more", other);
    expect(world.kvCache.numKeptBlocks).toBe(0);
    world.checkIntegrity();
  });
});
