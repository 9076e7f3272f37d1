import { describe, expect, it } from "vitest";
import { MAX_SKIPS } from "./scheduler.ts";
import { positionsOf, rowsPerSlot, SchedulerWorld, tokens } from "./testing/schedulerWorld.ts";

describe("Scheduler: prefix caching", () => {
  it("computes of a repeated prompt only the last token, from the blocks of a finished sequence", () => {
    const world = new SchedulerWorld();
    const first = world.addOne(tokens(55));
    world.step();
    const table = [...first.blockTable];
    world.finish(first);
    const second = world.addOne(tokens(55));
    const step = world.step();
    expect(step.rows.map(({ position }) => position)).toEqual([54]);
    expect(second.cachedTokens).toBe(54);
    expect(second.blockTable.slice(0, 3)).toEqual(table.slice(0, 3));
    // The last, partly filled block is copied, not shared: the first may be asked for again.
    expect(step.copies).toEqual([{ source: table[3], target: second.blockTable[3] }]);
  });

  it("copies the block that shares the most leading tokens and computes the rest", () => {
    const world = new SchedulerWorld();
    const first = world.addOne(tokens(64));
    world.step();
    const table = [...first.blockTable];
    const second = world.addOne([...tokens(40), ...tokens(20, 500)]);
    const step = world.step();
    expect(second.cachedTokens).toBe(40);
    expect(positionsOf(step, second)).toEqual(tokens(20, 40));
    expect(second.blockTable.slice(0, 2)).toEqual(table.slice(0, 2));
    expect(step.copies).toEqual([{ source: table[2], target: second.blockTable[2] }]);
  });

  it("shares full blocks between equal prompts of the same step", () => {
    const world = new SchedulerWorld();
    const first = world.addOne(tokens(40));
    const second = world.addOne(tokens(40));
    const step = world.step();
    expect(rowsPerSlot(step)).toEqual({ 0: 40, 1: 8 });
    expect(second.blockTable.slice(0, 2)).toEqual(first.blockTable.slice(0, 2));
    expect(world.scheduler.kvCache.pool.refCount(first.blockTable[0]!)).toBe(2);
  });

  it("computes the last token of a prompt that is cached entirely", () => {
    const world = new SchedulerWorld();
    const first = world.addOne(tokens(32));
    world.step();
    world.finish(first);
    const second = world.addOne(tokens(32));
    expect(world.step().rows.map(({ position }) => position)).toEqual([31]);
    expect(second.cachedTokens).toBe(31);
  });

  it("caches generated tokens too: a second turn computes the answer's last token and what is new", () => {
    const world = new SchedulerWorld();
    const first = world.addOne(tokens(20));
    for (let i = 0; i < 15; i++) world.step(900 + i);
    const history = [...first.tokens]; // 35 tokens, the K and V of 34 in the pool
    world.finish(first);
    const second = world.addOne([...history, 1, 2, 3, 4]);
    expect(world.step().rows).toHaveLength(1 + 4);
    expect(second.cachedTokens).toBe(34);
  });

  it("allocates nothing and caches nothing inside a block, one of each when crossing", () => {
    const world = new SchedulerWorld();
    const sequence = world.addOne(tokens(15));
    const seen: number[][] = [];
    for (let i = 0; i < 4; i++) {
      world.step();
      seen.push([sequence.blockTable.length, world.scheduler.kvCache.numCachedBlocks]);
    }
    expect(seen).toEqual([
      [1, 0],
      [1, 1],
      [2, 1],
      [2, 1],
    ]);
  });

  it("evicts unused blocks first, then chains from the tail, least recently used first", () => {
    const world = new SchedulerWorld();
    const first = world.addOne(tokens(55));
    const second = world.addOne([...tokens(48), ...tokens(7, 500)]);
    world.step();
    world.finish(first);
    world.finish(second);
    // The blocks in question hold: 3 and 4 the tails of the two, 0 to 2 what they share.
    expect(world.freeBlocks()).toEqual([5, 6, 7, 8, 9, 3, 4, 2, 1, 0]);
    const hit = world.addOne(tokens(40)); // revives 0 and 1, and copies a part of 2
    const { step } = world.schedule();
    expect(hit.blockTable).toEqual([0, 1, 5]);
    expect(step.copies).toEqual([{ source: 2, target: 5 }]);
    expect(world.freeBlocks()).toEqual([6, 7, 8, 9, 3, 4, 2]);
    world.finish(hit);
    world.addOne(tokens(160, 1000));
    world.step();
    expect(world.freeBlocks()).toEqual([]);
    expect(world.scheduler.kvCache.numCachedBlocks).toBe(10);
    const evicted = [...world.events].filter(({ kind }) => kind === "evict");
    expect(evicted.map((event) => "block" in event && event.block)).toEqual([3, 4, 2, 1, 0]);
  });

  it("does not find what was evicted", () => {
    const world = new SchedulerWorld({ numBlocks: 3 });
    const first = world.addOne(tokens(40));
    world.step();
    world.finish(first);
    const other = world.addOne(tokens(30, 500));
    world.step();
    world.finish(other);
    const again = world.addOne(tokens(40));
    world.step();
    expect(again.cachedTokens).toBe(16); // only the chain's head survived
  });

  it("does not evict the blocks it hits to make room for the rest of the same prompt", () => {
    const world = new SchedulerWorld({ numBlocks: 4 });
    const first = world.addOne(tokens(40));
    world.step();
    world.finish(first);
    const second = world.addOne([...tokens(32), ...tokens(30, 500)]);
    world.step();
    expect(second.cachedTokens).toBe(32);
    expect(new Set(second.blockTable).size).toBe(4);
  });

  it("counts revived blocks as taken, and a failed admission changes nothing", () => {
    const world = new SchedulerWorld({ numBlocks: 5 });
    const first = world.addOne(tokens(48));
    world.step();
    world.finish(first);
    world.addOne(tokens(30, 500)); // takes 2 of 5 blocks; the cached 3 are left
    world.step();
    const before = world.freeBlocks();
    const third = world.addOne([...tokens(48), 1]); // 3 revived and 1 new: one too many
    world.step();
    expect(third.status).toBe("waiting");
    expect(world.freeBlocks()).toEqual(before);
    expect(third.blockTable).toEqual([]);
  });

  it("counts a lookup once, at first admission, not when it is retried or resumed", () => {
    const world = new SchedulerWorld({ numBlocks: 4 });
    const first = world.addOne(tokens(40));
    world.addOne(tokens(40, 100));
    for (let i = 0; i < 5; i++) world.step();
    expect(world.metrics.snapshot()).toMatchObject({ prefix_cache_queries: 40 });
    world.scheduler.preemptAll("caller");
    world.step();
    expect(world.metrics.snapshot()).toMatchObject({
      prefix_cache_queries: 40,
      prefix_cache_hits: 0,
    });
    expect(first.cachedTokens).toBe(0);
  });
});

describe("Scheduler: admission", () => {
  it("gives blocks for a whole prompt or none, and leaves free what those who run will grow by", () => {
    const free = (expectedOutput: number) => {
      const world = new SchedulerWorld({ numBlocks: 104, expectedOutput, maxSequences: 20 });
      for (let i = 0; i < 20; i++) world.addOne(tokens(80, 100 * i), { maxTokens: 1000 });
      world.step();
      for (const { blockTable } of world.running) expect(blockTable).toHaveLength(5);
      return world.numFree;
    };
    expect(free(1)).toBe(104 - 20 * 5);
    expect(free(400)).toBeGreaterThan(5);
  });

  it("lets anybody in where nobody runs", () => {
    const world = new SchedulerWorld({ numBlocks: 5, expectedOutput: 400 });
    const only = world.addOne(tokens(80), { maxTokens: 1000 });
    world.step();
    expect(only.status).toBe("running");
  });

  it("lets an equal prompt wait to share what is being computed, and others go on", () => {
    const world = new SchedulerWorld({ maxRows: 32, numBlocks: 40 });
    const first = world.addOne(tokens(100));
    world.step();
    const equal = world.addOne([...tokens(90), 500]);
    const other = world.addOne(tokens(20, 600));
    let rows = 0;
    while (equal.numOutputTokens === 0) {
      const { step } = world.schedule();
      if (first.numMissingTokens > 1) expect(equal.status).toBe("waiting");
      rows += positionsOf(step, equal).length;
      expect(other.status).toBe("running");
    }
    expect(rows).toBe(91 - 80); // up to its last full block all is the first one's
  });
});

describe("Scheduler: a prompt that waits to share", () => {
  it("holds nobody up, however many go before it", () => {
    const world = new SchedulerWorld({ maxRows: 20, numBlocks: 200 });
    const long = world.addOne(tokens(1000));
    world.step();
    const equal = world.addOne([...tokens(990), 5000]);
    let numServed = 0;
    while (long.numMissingTokens > 60) {
      const small = world.addOne([6000 + numServed], { maxTokens: 1 });
      world.step();
      expect(small.status).toBe("finished");
      expect(equal.status).toBe("waiting");
      numServed += 1;
    }
    expect(numServed).toBeGreaterThan(MAX_SKIPS);
    while (equal.status === "waiting") world.step();
    expect(equal.cachedTokens).toBeGreaterThanOrEqual(976);
  });
});

describe("Scheduler: samples of one prompt", () => {
  it("compute it once and are all drawn from its last row", () => {
    const world = new SchedulerWorld();
    const samples = world.add(tokens(40), { n: 4 });
    const step = world.step();
    expect(step.rows).toHaveLength(40);
    expect(step.samples).toEqual([0, 1, 2, 3].map((slot) => ({ row: 39, slot, position: 40 })));
    expect(samples.map(({ blockTable }) => blockTable)).toEqual(Array(4).fill([0, 1, 2]));
    expect(samples.map(({ cachedTokens }) => cachedTokens)).toEqual([0, 40, 40, 40]);
  });

  it("also when it is computed in chunks: others wait with slots kept for them", () => {
    const world = new SchedulerWorld({ maxRows: 16, maxSequences: 3 });
    const samples = world.add(tokens(40), { n: 2 });
    const other = world.add(tokens(40, 500), { n: 2 });
    const steps = [world.step(), world.step(), world.step()];
    expect(steps.map(({ rows }) => rows.length)).toEqual([16, 16, 8]);
    expect(steps.map((step) => step.samples.length)).toEqual([0, 0, 2]);
    expect(samples.map(({ status }) => status)).toEqual(["running", "running"]);
    expect(other[0]?.status).toBe("waiting"); // one slot is free, it needs two
  });

  it("copy the shared last block before they write; the last one to write does so in place", () => {
    const world = new SchedulerWorld();
    const samples = world.add(tokens(40), { n: 4 });
    world.step();
    const { copies } = world.step();
    expect(copies).toEqual([
      { source: 2, target: 3 },
      { source: 2, target: 4 },
      { source: 2, target: 5 },
    ]);
    expect(samples.map(({ blockTable }) => blockTable[2])).toEqual([3, 4, 5, 2]);
    expect(world.step().copies).toEqual([]);
  });

  it.each([31, 32, 33])(
    "cost floor(P / B) + n * ceil((P mod B + out) / B) blocks for P = %i",
    (length) => {
      const world = new SchedulerWorld({ numBlocks: 100 });
      const out = 21;
      world.add(tokens(length), { n: 4, maxTokens: out });
      let numRows = 0;
      for (let i = 0; world.outcomes.requests.size > 0; i++) numRows += world.step(i).rows.length;
      const most = Math.floor(length / 16) + 4 * Math.ceil(((length % 16) + out) / 16);
      expect(world.scheduler.kvCache.pool.peakUsed).toBeLessThanOrEqual(most);
      expect(numRows).toBe(length + 4 * (out - 1));
    },
  );

  it("that are more than there are slots run one after the other, on the cached prompt", () => {
    const world = new SchedulerWorld({ maxSequences: 2 });
    const samples = world.add(tokens(40), { n: 5, maxTokens: 2 });
    const rows: number[] = [];
    while (world.outcomes.requests.size > 0) rows.push(world.step().rows.length);
    expect(samples.every(({ finishReason }) => finishReason === "length")).toBe(true);
    expect(rows).toEqual([40, 2, 2, 2, 1, 1]);
  });

  it("go on alone when the first is ended while it computes the prompt for all", () => {
    const world = new SchedulerWorld({ maxRows: 16 });
    const samples = world.add(tokens(40), { n: 3 });
    world.step();
    world.finish(samples[0]!, "abort");
    expect(samples.map(({ status }) => status)).toEqual(["finished", "waiting", "waiting"]);
    world.step();
    expect(samples[1]?.cachedTokens).toBe(16);
    while (samples[2]!.numOutputTokens < 2) world.step();
    expect(samples[1]?.numOutputTokens).toBeGreaterThan(0);
  });

  it("let go of one that is ended before it has begun", () => {
    const world = new SchedulerWorld({ maxRows: 16 });
    const samples = world.add(tokens(20), { n: 3 });
    world.step();
    world.finish(samples[1]!, "abort");
    expect(world.scheduler.residents.numFreeSlots).toBe(8 - 2);
    world.step();
    expect(samples.map(({ status }) => status)).toEqual(["running", "finished", "running"]);
  });

  it("are preempted one by one once they write on their own, together while they wait for the prompt", () => {
    const world = new SchedulerWorld({ maxRows: 16, maxSequences: 4 });
    const samples = world.add(tokens(20), { n: 3 });
    world.step();
    world.scheduler.preempt(samples[0]!, "caller");
    expect(world.scheduler.residents.numFreeSlots).toBe(4);
    expect(world.waiting).toEqual([samples[0]]);
    const step = world.step();
    expect(step.rows.map(({ position }) => position)).toEqual(tokens(4, 16));
    expect(step.samples).toHaveLength(3);
    world.scheduler.preempt(samples[1]!, "caller");
    expect(samples.map(({ status }) => status)).toEqual(["running", "waiting", "running"]);
  });
});
