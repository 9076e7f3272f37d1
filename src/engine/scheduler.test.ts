import { describe, expect, it } from "vitest";
import { createRequest, type EngineRequest } from "./request.ts";
import { GREEDY } from "./sampling.ts";
import { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import { SAMPLED_TOKEN, type Step } from "./step.ts";
import { StepBudget } from "./stepBudget.ts";
import type { ScheduledStep } from "./stepBuilder.ts";

interface Sizes {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxSequences: number;
  readonly maxRows: number;
}

/** A scheduler whose every step may use all of `maxRows`, and helpers to drive it by hand. */
function createWorld(sizes: Partial<Sizes> = {}) {
  const all = { numBlocks: 10, blockSize: 16, maxSequences: 8, maxRows: 1024, ...sizes };
  const budget = new StepBudget({ budgetMs: 1, maxRows: all.maxRows });
  budget.record(2 ** 20, 0);
  const scheduler = new Scheduler({ ...all, budget });
  let arrival = 0;
  return {
    scheduler,
    add(promptTokens: readonly number[], fields: Partial<EngineRequest> = {}): Sequence[] {
      const request = createRequest(
        {
          id: arrival,
          promptTokens,
          n: 1,
          maxTokens: 32,
          stopTokenIds: [],
          sampling: GREEDY,
          ...fields,
        },
        { ...all, numBlocks: 1000, maxContext: 10_000, endTokens: new Set() },
        arrival,
      );
      arrival += request.sequences.length;
      for (const sequence of request.sequences) scheduler.add(sequence);
      return [...request.sequences];
    },
    schedule(): ScheduledStep {
      const scheduled = scheduler.schedule();
      if (scheduled === undefined) throw new Error("There was nothing to schedule.");
      scheduler.checkIntegrity();
      return scheduled;
    },
    /** Schedules a step and pretends that every sample is `token`. */
    step(token = 7): Step {
      const { step, sampledSequences } = this.schedule();
      for (const sequence of sampledSequences) {
        sequence.tokens.push(token);
        sequence.lastTokenInSlot = true;
      }
      return step;
    },
    freeBlocks: () => scheduler.kvCache.pool.freeBlocks(),
  };
}

/** `count` different tokens, starting with `first`. */
function tokens(count: number, first = 0): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

function rowsPerSlot(step: Step): Record<number, number> {
  const counts: Record<number, number> = {};
  for (const { slot } of step.rows) counts[slot] = (counts[slot] ?? 0) + 1;
  return counts;
}

describe("Scheduler: who runs", () => {
  it("has nothing to schedule without sequences", () => {
    expect(createWorld().scheduler.schedule()).toBeUndefined();
  });

  it("schedules whole prompts in order of arrival when all fit", () => {
    const { add, scheduler, schedule } = createWorld();
    const sequences = [add(tokens(20)), add(tokens(5, 100)), add(tokens(9, 200))].flat();
    const { step, sampledSequences } = schedule();
    expect(rowsPerSlot(step)).toEqual({ 0: 20, 1: 5, 2: 9 });
    expect(sampledSequences).toEqual(sequences);
    expect([...scheduler.running]).toEqual(sequences);
    expect(step.samples).toEqual([
      { row: 19, slot: 0, position: 20 },
      { row: 24, slot: 1, position: 5 },
      { row: 33, slot: 2, position: 9 },
    ]);
  });

  it("computes a long prompt in chunks and samples only after the last", () => {
    const world = createWorld({ maxRows: 16 });
    world.add(tokens(40));
    const steps = [world.step(), world.step(), world.step(), world.step()];
    expect(steps.map((step) => step.rows.length)).toEqual([16, 16, 8, 1]);
    expect(steps.map((step) => step.samples.length)).toEqual([0, 0, 1, 1]);
    expect(steps[1]?.rows[0]).toMatchObject({ position: 16, token: 16 });
    expect(steps[3]?.rows[0]).toMatchObject({ position: 40, token: SAMPLED_TOKEN });
  });

  it("gives every decoding sequence its row before any prompt gets a chunk", () => {
    const world = createWorld({ maxRows: 20, numBlocks: 20 });
    world.add(tokens(4));
    world.add(tokens(4, 50));
    world.step();
    world.add(tokens(100, 100));
    expect(rowsPerSlot(world.step())).toEqual({ 0: 1, 1: 1, 2: 18 });
    world.add(tokens(3, 300)); // behind the long prompt, which still takes all rows that are left
    expect(rowsPerSlot(world.step())).toEqual({ 0: 1, 1: 1, 2: 18 });
  });

  it("does not let a later short prompt overtake an earlier one that lacks blocks", () => {
    const world = createWorld({ numBlocks: 4 });
    world.add(tokens(40));
    world.step();
    const [long] = world.add(tokens(30, 100));
    const [short] = world.add(tokens(2, 200));
    world.step();
    expect([...world.scheduler.waiting]).toEqual([long, short]);
  });

  it("keeps sequences that find no slot waiting, and gives them slots that are freed", () => {
    const world = createWorld({ maxSequences: 2, numBlocks: 100 });
    const sequences = Array.from({ length: 50 }, (_, i) => world.add([i])).flat();
    const order: Sequence[] = [];
    while (world.scheduler.running.size + world.scheduler.waiting.size > 0) {
      expect(world.step().rows.every(({ slot }) => slot < 2)).toBe(true);
      for (const sequence of [...world.scheduler.running]) {
        order.push(sequence);
        world.scheduler.finish(sequence, "length");
      }
    }
    expect(order).toEqual(sequences);
  });

  it("looks at no waiting sequence behind the first, however long the queue", () => {
    const world = createWorld({ maxSequences: 2, numBlocks: 100 });
    const sequences = Array.from({ length: 1000 }, (_, i) => world.add([i])).flat();
    // Whoever walks along the queue trips over its tenth sequence.
    Object.defineProperty(sequences[10], "next", {
      get: () => {
        throw new Error("The queue was walked.");
      },
    });
    const step = () => {
      for (const { tokens } of world.scheduler.schedule()!.sampledSequences) tokens.push(7);
    };
    for (let i = 0; i < 3; i++) step();
    world.scheduler.preempt(sequences[1]!);
    step();
    for (const i of [0, 500, 999]) world.scheduler.finish(sequences[i]!, "abort");
    step();
    expect(world.scheduler.running.size).toBe(2);
    expect(() => world.scheduler.checkIntegrity()).toThrow("The queue was walked.");
  });

  it("counts computed tokens when they are scheduled, so the next step needs no result of the last", () => {
    const world = createWorld({ maxRows: 16 });
    const [sequence] = world.add(tokens(40));
    world.schedule();
    expect(sequence?.numComputedTokens).toBe(16);
    expect(world.schedule().step.rows[0]?.position).toBe(16);
  });
});

describe("Scheduler: what a step says", () => {
  it("sends the whole table on entering a slot and later only what was appended", () => {
    const world = createWorld({ blockSize: 4 });
    world.add(tokens(7));
    const steps = Array.from({ length: 6 }, () => world.step());
    expect(steps.map((step) => step.blockTableEntries)).toEqual([
      [
        { slot: 0, index: 0, block: 0 },
        { slot: 0, index: 1, block: 1 },
      ],
      [],
      [{ slot: 0, index: 2, block: 2 }],
      [],
      [],
      [],
    ]);
    expect(steps.map((step) => step.slotResets.length)).toEqual([1, 0, 0, 0, 0, 0]);
    expect(steps.map((step) => step.rows.at(-1)?.kvSlot)).toEqual([6, 7, 8, 9, 10, 11]);
    expect(steps.map((step) => step.id)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("takes no block before the last one is full", () => {
    const world = createWorld({ blockSize: 4 });
    const [sequence] = world.add(tokens(3));
    const sizes = Array.from({ length: 6 }, () => {
      world.step();
      return sequence?.blockTable.length;
    });
    expect(sizes).toEqual([1, 1, 2, 2, 2, 2]);
  });

  it("never runs more sequences than a step has rows", () => {
    const world = createWorld({ maxRows: 3, maxSequences: 8 });
    for (let i = 0; i < 6; i++) world.add(tokens(4, 10 * i));
    for (let i = 0; i < 20; i++) {
      expect(world.step().rows.length).toBeLessThanOrEqual(3);
      expect(world.scheduler.running.size).toBeLessThanOrEqual(3);
    }
  });

  it("sends tokens so far with a slot reset only where penalties need them", () => {
    const world = createWorld();
    const sampling = { ...GREEDY, repetitionPenalty: 1.1 };
    world.add([1, 2, 3], { sampling });
    world.add([4, 5]);
    expect(world.step().slotResets).toEqual([
      { slot: 0, sampling, promptTokens: [1, 2, 3], outputTokens: [] },
      { slot: 1, sampling: GREEDY, promptTokens: [], outputTokens: [] },
    ]);
    world.scheduler.preemptAll();
    expect(world.step().slotResets[0]).toMatchObject({
      promptTokens: [1, 2, 3],
      outputTokens: [7],
    });
  });
});

describe("Scheduler: prefix caching", () => {
  it("computes a repeated prompt's tail only, from the blocks of a finished sequence", () => {
    const world = createWorld();
    const [first] = world.add(tokens(55));
    world.step();
    const table = [...first!.blockTable];
    world.scheduler.finish(first!, "stop");
    const [second] = world.add(tokens(55));
    expect(world.step().rows).toHaveLength(55 % 16);
    expect(second?.cachedTokens).toBe(48);
    expect(second?.blockTable.slice(0, 3)).toEqual(table.slice(0, 3));
  });

  it("shares blocks between equal prompts of the same step", () => {
    const world = createWorld();
    const [first] = world.add(tokens(40));
    const [second] = world.add(tokens(40));
    const step = world.step();
    expect(rowsPerSlot(step)).toEqual({ 0: 40, 1: 8 });
    expect(second?.blockTable.slice(0, 2)).toEqual(first?.blockTable.slice(0, 2));
    expect(world.scheduler.kvCache.pool.refCount(first!.blockTable[0]!)).toBe(2);
  });

  it("shares the prompt's full blocks among the n samples of a request", () => {
    const world = createWorld();
    const samples = world.add(tokens(40), { n: 4 });
    expect(rowsPerSlot(world.step())).toEqual({ 0: 40, 1: 8, 2: 8, 3: 8 });
    expect(world.scheduler.kvCache.pool.numUsed).toBe(2 + 4);
    expect(samples.map((sequence) => sequence.cachedTokens)).toEqual([0, 32, 32, 32]);
  });

  it("shares the prompt among n samples also when it is computed in chunks", () => {
    const world = createWorld({ maxRows: 16 });
    world.add(tokens(40), { n: 2 });
    const steps = [world.step(), world.step(), world.step()];
    expect(steps.map(rowsPerSlot)).toEqual([{ 0: 16 }, { 0: 16 }, { 0: 8, 1: 8 }]);
  });

  it("computes the last token of a prompt that is cached entirely, with its block", () => {
    const world = createWorld();
    const [first] = world.add(tokens(32));
    world.step();
    world.scheduler.finish(first!, "stop");
    const [second] = world.add(tokens(32));
    expect(world.step().rows).toHaveLength(16);
    expect(second?.cachedTokens).toBe(16);
  });

  it("caches generated blocks too: a second turn computes len % B and what is new", () => {
    const world = createWorld({ maxRows: 1024 });
    const [first] = world.add(tokens(20));
    for (let i = 0; i < 15; i++) world.step(900 + i);
    const history = [...first!.tokens]; // 35 tokens, the K and V of 34 in the pool
    world.scheduler.finish(first!, "stop");
    const [second] = world.add([...history, 1, 2, 3, 4]);
    expect(world.step().rows).toHaveLength((35 % 16) + 4);
    expect(second?.cachedTokens).toBe(32);
  });

  it("allocates nothing and caches nothing inside a block, one of each when crossing", () => {
    const world = createWorld();
    const [sequence] = world.add(tokens(15));
    const seen: number[][] = [];
    for (let i = 0; i < 4; i++) {
      world.step();
      seen.push([sequence!.blockTable.length, world.scheduler.kvCache.numCachedBlocks]);
    }
    expect(seen).toEqual([
      [1, 0],
      [1, 1],
      [2, 1],
      [2, 1],
    ]);
  });

  it("evicts unhashed and unused blocks first, then chains from the tail, least recently used first", () => {
    const world = createWorld();
    const [first] = world.add(tokens(55));
    const [second] = world.add([...tokens(48), ...tokens(7, 500)]);
    world.step();
    world.scheduler.finish(first!, "stop");
    world.scheduler.finish(second!, "stop");
    expect(world.freeBlocks()).toEqual([4, 3, 5, 6, 7, 8, 9, 2, 1, 0]);
    const [hit] = world.add(tokens(40)); // revives blocks 0 and 1
    world.step();
    expect(hit?.blockTable).toEqual([0, 1, 4]);
    world.scheduler.finish(hit!, "stop");
    expect(world.freeBlocks()).toEqual([4, 3, 5, 6, 7, 8, 9, 2, 1, 0]);
    world.add(tokens(160, 1000));
    world.step();
    expect(world.freeBlocks()).toEqual([]);
    expect(world.scheduler.kvCache.numCachedBlocks).toBe(10);
  });

  it("does not find what was evicted", () => {
    const world = createWorld({ numBlocks: 3 });
    const [first] = world.add(tokens(40));
    world.step();
    world.scheduler.finish(first!, "stop");
    const [other] = world.add(tokens(30, 500));
    world.step();
    world.scheduler.finish(other!, "stop");
    const [again] = world.add(tokens(40));
    world.step();
    expect(again?.cachedTokens).toBe(16); // only the chain's head survived
  });

  it("does not evict the blocks it hits to make room for the rest of the same prompt", () => {
    const world = createWorld({ numBlocks: 4 });
    const [first] = world.add(tokens(40));
    world.step();
    world.scheduler.finish(first!, "stop");
    const [second] = world.add([...tokens(32), ...tokens(30, 500)]);
    world.step();
    expect(second?.cachedTokens).toBe(32);
    expect(new Set(second?.blockTable).size).toBe(4);
  });

  it("counts revived blocks as taken, and a failed admission changes nothing", () => {
    const world = createWorld({ numBlocks: 5 });
    const [first] = world.add(tokens(48));
    world.step();
    world.scheduler.finish(first!, "stop");
    world.add(tokens(30, 500)); // takes 2 of 5 blocks; the cached 3 are left
    world.step();
    const before = world.freeBlocks();
    const [third] = world.add([...tokens(48), 1]); // 3 revived and 1 new: one too many
    world.step();
    expect(third?.status).toBe("waiting");
    expect(world.freeBlocks()).toEqual(before);
    expect(third?.blockTable).toEqual([]);
  });

  it("counts a lookup once, at first admission, not when it is retried or resumed", () => {
    const world = createWorld({ numBlocks: 4 });
    const [first] = world.add(tokens(40));
    world.add(tokens(20, 100));
    for (let i = 0; i < 5; i++) world.step();
    expect(world.scheduler.prefixCacheQueries).toBe(40);
    world.scheduler.preemptAll();
    world.step();
    expect(world.scheduler.prefixCacheQueries).toBe(40);
    expect(world.scheduler.prefixCacheHits).toBe(0);
    expect(first?.cachedTokens).toBe(0);
  });
});

describe("Scheduler: preemption", () => {
  it("preempts the latest arrival, keeps its tokens and resumes it from the cached prefix", () => {
    const world = createWorld({ numBlocks: 4 });
    const [first] = world.add(tokens(31));
    const [second] = world.add(tokens(31, 100));
    for (let i = 0; i < 2; i++) world.step();
    expect(world.scheduler.numPreemptions).toBe(0);
    world.step(); // both need a third block; there is none
    expect(world.scheduler.numPreemptions).toBe(1);
    expect(first?.status).toBe("running");
    expect(second).toMatchObject({ status: "waiting", numTokens: 33, numComputedTokens: 0 });
    expect(second?.blockTable).toEqual([]);
    world.scheduler.finish(first!, "stop");
    const step = world.step();
    expect(second?.status).toBe("running");
    // The first block survived; the second was taken, and 33 tokens need their own third.
    expect(step.rows.map(({ position }) => position)).toEqual(tokens(17, 16));
    expect(step.rows.every(({ token }) => token !== SAMPLED_TOKEN)).toBe(true);
    expect(step.samples).toEqual([{ row: 16, slot: step.rows[0]!.slot, position: 33 }]);
    expect(second?.cachedTokens).toBe(0);
  });

  it("gives up its own row rather than an earlier sequence's when it is the latest itself", () => {
    const world = createWorld({ numBlocks: 3 });
    const [first] = world.add(tokens(20));
    const [second] = world.add(tokens(15, 100));
    world.step();
    world.step();
    const step = world.step(); // the second needs a block, the first does not
    expect(rowsPerSlot(step)).toEqual({ 0: 1 });
    expect(first?.status).toBe("running");
    expect(second?.status).toBe("waiting");
  });

  it("admits nobody in a step that preempted somebody", () => {
    const world = createWorld({ numBlocks: 4 });
    world.add(tokens(31));
    world.add(tokens(31, 100));
    world.step();
    world.step();
    const [small] = world.add([1]);
    world.step();
    expect(world.scheduler.numPreemptions).toBe(1);
    expect(small?.status).toBe("waiting");
  });

  it("does not admit a sequence again before all its tokens fit, so that it is not preempted in a loop", () => {
    const world = createWorld({ numBlocks: 4, maxRows: 16 });
    const [first] = world.add(tokens(31));
    const [second] = world.add(tokens(31, 100));
    while (world.scheduler.numPreemptions === 0) world.step();
    for (let i = 0; i < 10; i++) {
      expect(world.step().rows).toHaveLength(1);
      expect(second?.status).toBe("waiting");
    }
    expect(world.scheduler.numPreemptions).toBe(1);
    expect(first?.numOutputTokens).toBeGreaterThan(10);
  });

  it("never lacks blocks for a prompt that it has begun", () => {
    const world = createWorld({ numBlocks: 6, maxRows: 16 });
    world.add(tokens(80));
    world.step();
    const [late] = world.add(tokens(20, 500));
    for (let i = 0; i < 4; i++) world.step();
    expect(late?.status).toBe("waiting");
    expect(world.scheduler.numPreemptions).toBe(0);
  });

  it("puts all back in order of arrival", () => {
    const world = createWorld();
    const sequences = [world.add([1]), world.add([2]), world.add([3]), world.add([4])].flat();
    world.step();
    world.scheduler.preemptAll();
    world.scheduler.checkIntegrity();
    expect([...world.scheduler.waiting]).toEqual(sequences);
    expect(world.scheduler.kvCache.pool.numUsed).toBe(0);
  });

  it("ends waiting, running and preempted sequences and leaves nothing behind", () => {
    const world = createWorld({ maxSequences: 2 });
    const sequences = [world.add([1]), world.add([2]), world.add([3])].flat();
    world.step();
    world.scheduler.preempt(sequences[1]!);
    for (const sequence of sequences) {
      world.scheduler.finish(sequence, "abort");
      world.scheduler.checkIntegrity();
    }
    expect(world.scheduler.running.size + world.scheduler.waiting.size).toBe(0);
    expect(world.freeBlocks()).toHaveLength(10);
    expect(world.scheduler.schedule()).toBeUndefined();
  });
});
