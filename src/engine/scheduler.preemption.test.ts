import { describe, expect, it } from "vitest";
import { SAMPLED_TOKEN } from "./step.ts";
import { CANDIDATES, SchedulerWorld, tokens } from "./testing/schedulerWorld.ts";

describe("Scheduler: preemption", () => {
  it("happens to nobody for a better priority that would not come in all the same, for the sake of those who stay", () => {
    const world = new SchedulerWorld({ numBlocks: 20, expectedOutput: 800 });
    const better = world.addOne(tokens(30), { maxTokens: 1000 });
    const slow = [1, 2].map((i) => world.addOne(tokens(30, 100 * i), { priority: 2 }));
    world.step();
    // 16 blocks would be free without the slow ones, but 4 of them are the better one's to grow.
    const large = world.addOne(tokens(256, 500), { priority: 1 });
    for (let i = 0; i < 3; i++) world.step();
    expect([better, large, ...slow].map(({ status }) => status)).toEqual([
      "running",
      "waiting",
      "running",
      "running",
    ]);
  });

  it("keeps the victim's tokens and resumes it from what the cache still has", () => {
    const world = new SchedulerWorld({ numBlocks: 4 });
    const first = world.addOne(tokens(31));
    const second = world.addOne(tokens(31, 100));
    for (let i = 0; i < 2; i++) world.step();
    expect(world.scheduler.residents.numPreemptions).toBe(0);
    world.step(); // both need a third block; there is none
    expect(world.scheduler.residents.numPreemptions).toBe(1);
    expect(first.status).toBe("running");
    expect(second).toMatchObject({ status: "waiting", numTokens: 33, numComputedTokens: 0 });
    expect(second.blockTable).toEqual([]);
    world.finish(first);
    const { step } = world.schedule();
    expect(second.status).toBe("running");
    // The first block survived; the second was taken, and 33 tokens need their own third.
    expect(step.rows.map(({ position }) => position)).toEqual(tokens(17, 16));
    expect(step.rows.every(({ token }) => token !== SAMPLED_TOKEN)).toBe(true);
    expect(step.samples).toEqual([{ row: 16, slot: step.rows[0]!.slot, position: 33 }]);
    expect(second.cachedTokens).toBe(0);
  });

  it("takes whoever is cheapest to compute again, not the latest", () => {
    const world = new SchedulerWorld({ numBlocks: 7 });
    world.addOne(tokens(31));
    const cheap = world.addOne(tokens(12, 100));
    const dear = world.addOne(tokens(50, 200));
    for (let i = 0; i < 3; i++) world.step();
    expect([cheap, dear].map(({ status }) => status)).toEqual(["waiting", "running"]);
    expect([...world.events].filter(({ kind }) => kind === "preempt")).toMatchObject([
      {
        requestId: 1,
        reason: "blocks",
        how: "recompute",
        tokensLost: 13,
        blocksFreed: 1,
        kvUsageBefore: 1,
        kvUsageAfter: 6 / 7,
      },
    ]);
    expect(world.scheduler.residents.numTokensLost).toBe(13);
  });

  it("does not count as lost what others hold too", () => {
    const world = new SchedulerWorld({ numBlocks: 7 });
    const first = world.addOne(tokens(64));
    const sharing = world.addOne([...tokens(63), 100]); // of 64 tokens 48 are in blocks of the first
    const alone = world.addOne(tokens(30, 200));
    for (let i = 0; i < 2; i++) world.step();
    expect(world.scheduler.residents.numPreemptions).toBe(1);
    expect([first, sharing, alone].map(({ status }) => status)).toEqual([
      "running",
      "waiting",
      "running",
    ]);
  });

  it("spares the first in line while there is another, even where that one needs the block itself", () => {
    const world = new SchedulerWorld({ numBlocks: 3 });
    const first = world.addOne(tokens(3));
    const second = world.addOne(tokens(31, 100));
    for (let i = 0; i < 3; i++) world.step();
    expect([first, second].map(({ status }) => status)).toEqual(["running", "waiting"]);
  });

  it("admits nobody in a step that preempted somebody", () => {
    const world = new SchedulerWorld({ numBlocks: 5 });
    const early = world.addOne([1]);
    world.addOne(tokens(31, 100));
    world.addOne(tokens(31, 200));
    world.step();
    world.step();
    world.scheduler.preempt(early, "caller");
    const { residents } = world.scheduler;
    world.step(); // both others need a third block, and one is free
    expect(residents.numPreemptions).toBe(2);
    expect(world.numFree).toBe(2);
    expect(early.status).toBe("waiting");
    world.step();
    expect(early.status).toBe("running");
  });

  it("lets nobody overtake a victim that does not fit yet: what is left of it would be overwritten", () => {
    const world = new SchedulerWorld({ numBlocks: 4 });
    const first = world.addOne(tokens(31));
    const second = world.addOne(tokens(31, 100));
    for (let i = 0; i < 3; i++) world.step();
    const small = world.addOne([1]);
    for (let i = 0; i < 5; i++) world.step();
    expect(world.numFree).toBe(1);
    expect([second, small].map(({ status }) => status)).toEqual(["waiting", "waiting"]);
    world.finish(first);
    world.step();
    expect([second, small].map(({ status }) => status)).toEqual(["running", "running"]);
  });

  it("does not admit a sequence again before all its tokens fit, so that it is not preempted in a loop", () => {
    const world = new SchedulerWorld({ numBlocks: 4, maxRows: 16 });
    const first = world.addOne(tokens(31));
    const second = world.addOne(tokens(31, 100));
    while (world.scheduler.residents.numPreemptions === 0) world.step();
    for (let i = 0; i < 10; i++) {
      expect(world.step().rows).toHaveLength(1);
      expect(second.status).toBe("waiting");
    }
    expect(world.scheduler.residents.numPreemptions).toBe(1);
    expect(first.numOutputTokens).toBeGreaterThan(10);
  });

  it("never lacks blocks for a prompt that it has begun", () => {
    const world = new SchedulerWorld({ numBlocks: 6, maxRows: 16 });
    world.addOne(tokens(80));
    world.step();
    const late = world.addOne(tokens(20, 500));
    for (let i = 0; i < 4; i++) world.step();
    expect(late.status).toBe("waiting");
    expect(world.scheduler.residents.numPreemptions).toBe(0);
  });

  it("takes all beams of a search, forgets what came of some of them, and keeps slots for all", () => {
    const world = new SchedulerWorld();
    const beam = { width: 3, lengthPenalty: 1, earlyStopping: true };
    world.addOne(tokens(6), { beam });
    expect(world.scheduler.residents.numFreeSlots).toBe(8);
    world.step();
    const [first, second, third] = world.running;
    expect(world.running).toHaveLength(3);
    expect(world.scheduler.residents.numFreeSlots).toBe(5);
    const group = world.outcomes.requests.get(0)!.beams!;
    expect(group.receive(first!, CANDIDATES)).toBeUndefined();
    expect(group.receive(second!, CANDIDATES)).toBeUndefined();
    world.scheduler.preempt(second!, "caller");
    expect(world.waiting).toEqual([first]);
    expect(world.scheduler.residents.numFreeSlots).toBe(8);
    expect(group.receive(third!, CANDIDATES)).toBeUndefined();
    expect(group.receive(second!, CANDIDATES)).toBeUndefined();
    expect(group.receive(first!, CANDIDATES)).toHaveLength(3);
  });

  it("ends waiting, running and preempted sequences and leaves nothing behind", () => {
    const world = new SchedulerWorld({ maxSequences: 2 });
    const sequences = [world.addOne([1]), world.addOne([2]), world.addOne([3])];
    world.step();
    world.scheduler.preempt(sequences[1]!, "caller");
    for (const sequence of sequences) world.finish(sequence, "abort");
    expect(world.running.length + world.waiting.length).toBe(0);
    expect(world.freeBlocks()).toHaveLength(10);
    expect(world.scheduler.schedule()).toBeUndefined();
  });
});

describe("Scheduler: swapping", () => {
  const SWAPPING = { numBlocks: 4, numHostBlocks: 8, msPerRow: 1 };

  it("moves a victim's blocks to the host and back where that costs less than computing again", () => {
    const world = new SchedulerWorld(SWAPPING);
    const first = world.addOne(tokens(31));
    const second = world.addOne(tokens(31, 100));
    world.step();
    world.step();
    const table = [...second.blockTable];
    const out = world.step(); // both need a third block
    expect(out.swapOuts).toEqual(table.map((block, i) => ({ block, hostBlock: i })));
    expect(second).toMatchObject({ status: "waiting", numComputedTokens: 0 });
    expect(world.scheduler.residents).toMatchObject({
      numSwapped: 1,
      numSwaps: 1,
      numTokensLost: 0,
    });
    world.finish(first);
    const back = world.schedule().step;
    // The first block is still in the prefix cache; only the second comes from the host.
    expect(back.swapIns).toEqual([{ block: second.blockTable[1], hostBlock: 1 }]);
    expect(back.rows.map(({ position }) => position)).toEqual([32]);
    expect(world.scheduler.residents.numSwapped).toBe(0);
    const kinds = [...world.events].map((event) => [event.kind, "how" in event && event.how]);
    expect(kinds.filter(([kind]) => kind !== "evict")).toEqual([
      ["preempt", "swap"],
      ["swap-in", false],
    ]);
  });

  it("computes again where rows cost nothing, or the host has no room", () => {
    for (const options of [{ msPerRow: 0 }, { numHostBlocks: 1 }]) {
      const world = new SchedulerWorld({ ...SWAPPING, ...options });
      world.addOne(tokens(31));
      world.addOne(tokens(31, 100));
      for (let i = 0; i < 3; i++) expect(world.step().swapOuts).toEqual([]);
      expect(world.scheduler.residents).toMatchObject({
        numPreemptions: 1,
        numSwaps: 0,
        numTokensLost: 32,
      });
    }
  });

  it("brings nothing back before the step that took it out has its result", () => {
    const world = new SchedulerWorld(SWAPPING);
    const first = world.addOne(tokens(31));
    const second = world.addOne(tokens(31, 100));
    world.step();
    world.step();
    const out = world.schedule();
    expect(out.step.swapOuts).toHaveLength(2);
    world.finish(first);
    expect(world.scheduler.schedule()).toBeUndefined();
    expect(second.status).toBe("waiting");
    world.receive(out);
    expect(world.schedule().step.swapIns.length).toBeGreaterThan(0);
  });

  it("does not wait for a swap-out that no step carries: nobody is left to have a row beside it", () => {
    const world = new SchedulerWorld({ ...SWAPPING, numBlocks: 4 });
    const copies = world.addOne([1, 2, 3, ...tokens(26, 20), 1, 2], { numSpeculativeTokens: 4 });
    const second = world.addOne(tokens(31, 100));
    world.step(3);
    const held = world.schedule();
    // The first is held for this result; the second crosses into a block that there is not.
    expect(world.scheduler.schedule()).toBeUndefined();
    expect([copies, second].map(({ status }) => status)).toEqual(["running", "waiting"]);
    world.finish(copies);
    world.receive(held);
    const { step } = world.schedule();
    expect(second.status).toBe("running");
    expect(step.rows).toHaveLength(1); // the prefix cache still has all the rest
    expect(world.scheduler.residents.numSwapped).toBe(0);
  });

  it("gives the host's blocks back when a sequence that waits there is ended", () => {
    const world = new SchedulerWorld(SWAPPING);
    world.addOne(tokens(31));
    const second = world.addOne(tokens(31, 100));
    for (let i = 0; i < 3; i++) world.step();
    expect(world.scheduler.residents.numSwapped).toBe(1);
    world.finish(second, "abort");
    expect(world.scheduler.residents.numSwapped).toBe(0);
    expect(second.swapped).toBeUndefined();
  });
});
