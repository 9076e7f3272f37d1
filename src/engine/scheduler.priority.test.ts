import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_SKIPS } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import { SchedulerWorld, tokens } from "./testing/schedulerWorld.ts";
import { AGING_MS } from "./waitingQueue.ts";

const ONE_SLOT = { maxSequences: 1, numBlocks: 100 };

/** The order in which all that wait get to run, when whoever runs ends after each step. */
function orderOfRunning(world: SchedulerWorld): Sequence[] {
  const order: Sequence[] = [];
  while (world.outcomes.requests.size > 0) {
    world.schedule();
    for (const sequence of world.running) {
      order.push(sequence);
      world.finish(sequence);
    }
  }
  return order;
}

describe("Scheduler: priorities", () => {
  it("lets lower values go first, then who came first", () => {
    const world = new SchedulerWorld(ONE_SLOT);
    const priorities = [2, 0, 1, 0, -1, 2, 1];
    const sequences = priorities.map((priority, i) => world.addOne([i], { priority }));
    expect(orderOfRunning(world)).toEqual([4, 1, 3, 2, 6, 0, 5].map((i) => sequences[i]));
  });

  it("goes by arrival alone where all are the same", () => {
    const world = new SchedulerWorld(ONE_SLOT);
    const sequences = [0, 1, 2, 3].map((i) => world.addOne([i], { priority: 5 }));
    expect(orderOfRunning(world)).toEqual(sequences);
  });

  it("puts those that are preempted back to their places", () => {
    const world = new SchedulerWorld({ numBlocks: 100 });
    const sequences = [1, 0, 2, 0].map((priority, i) => world.addOne([i], { priority }));
    world.step();
    world.scheduler.preemptAll("caller");
    const late = world.addOne([9], { priority: 1 });
    world.scheduler.residents.checkIntegrity();
    expect(world.waiting).toEqual([sequences[1], sequences[3], sequences[0], late, sequences[2]]);
    expect(world.scheduler.kvCache.pool.numUsed).toBe(0);
  });

  it("takes blocks from running sequences of lower priority, the worst and latest first, and no more than it needs", () => {
    const world = new SchedulerWorld({ numBlocks: 8 });
    const runners = [1, 2, 2, 0].map((priority, i) =>
      world.addOne(tokens(30, 100 * i), { priority }),
    );
    world.step();
    const urgent = world.addOne(tokens(40, 900), { priority: -1 });
    world.step();
    expect(urgent.status).toBe("running");
    expect(runners.map(({ status }) => status)).toEqual([
      "running",
      "waiting",
      "waiting",
      "running",
    ]);
    const preempted = [...world.events].filter(({ kind }) => kind === "preempt");
    expect(preempted).toMatchObject([
      { requestId: 2, reason: "priority", how: "recompute", tokensLost: 30, blocksFreed: 2 },
      { requestId: 1, reason: "priority", how: "recompute", tokensLost: 30, blocksFreed: 2 },
    ]);
  });

  it("takes a slot from a lower priority, whose turn comes again with all its tokens", () => {
    const world = new SchedulerWorld(ONE_SLOT);
    const slow = world.addOne(tokens(20), { priority: 1 });
    world.step(50);
    world.step(51);
    const urgent = world.addOne(tokens(20, 100));
    world.step();
    expect([slow.status, urgent.status]).toEqual(["waiting", "running"]);
    world.finish(urgent);
    const resumed = world.schedule();
    expect(slow.status).toBe("running");
    expect(slow.tokens).toEqual([...tokens(20), 50, 51]);
    // All but the last token, which was sampled and never computed, is in the prefix cache.
    expect(resumed.step.rows.map(({ position }) => position)).toEqual([21]);
  });

  it("preempts nobody for a priority where there is room, nor for an equal one", () => {
    const world = new SchedulerWorld({ numBlocks: 6 });
    const slow = world.addOne(tokens(20), { priority: 1 });
    world.step();
    world.addOne(tokens(20, 100));
    world.step();
    world.addOne(tokens(30, 200), { priority: 1 });
    world.addOne(tokens(30, 300), { priority: 1 });
    for (let i = 0; i < 3; i++) world.step();
    expect(slow.status).toBe("running");
    expect(world.scheduler.residents.numPreemptions).toBe(0);
  });

  it("counts cached blocks that nobody holds among those that a better priority needs", () => {
    const world = new SchedulerWorld({ numBlocks: 6 });
    const before = world.addOne(tokens(48));
    world.step();
    world.finish(before);
    const slow = world.addOne(tokens(20, 100), { priority: 1 });
    world.step();
    // Four blocks are free, three of them cached ones that it begins with, and it needs two more.
    const urgent = world.addOne([...tokens(48), ...tokens(20, 200)]);
    world.step();
    expect([slow, urgent].map(({ status }) => status)).toEqual(["waiting", "running"]);
    expect(urgent.cachedTokens).toBe(48);
  });

  it("makes room for a better priority also where blocks are kept free for those who run", () => {
    const world = new SchedulerWorld({ numBlocks: 100, expectedOutput: 800, maxSequences: 20 });
    const slow = Array.from({ length: 16 }, (_, i) =>
      world.addOne(tokens(80, 100 * i), { priority: 1, maxTokens: 1000 }),
    );
    while (world.waiting.length < 16 && world.running.length < 16) {
      const { length } = world.running;
      world.step();
      if (world.running.length === length) break;
    }
    const numWaiting = world.waiting.length;
    expect(numWaiting).toBeGreaterThan(0); // blocks are free that nobody may have
    expect(world.numFree).toBeGreaterThan(5);
    const urgent = world.addOne(tokens(80, 5000));
    world.step();
    expect(urgent.status).toBe("running");
    expect(slow.filter(({ status }) => status === "running").length).toBeGreaterThan(3);
  });

  it.each([
    ["blocks", tokens(60, 200), 1],
    ["slots", tokens(8, 200), 8],
  ])("preempts nobody for a sequence that would lack %s even then", (_, prompt, n) => {
    const world = new SchedulerWorld({ numBlocks: 6 });
    const first = world.addOne(tokens(40));
    const slow = world.addOne(tokens(20, 100), { priority: 1 });
    world.step();
    const [large] = world.add(prompt, { n });
    world.step();
    expect([first, slow].map(({ status }) => status)).toEqual(["running", "running"]);
    expect(large?.status).toBe("waiting");
  });

  it("lets no lower priority overtake one that does not fit: it would be preempted for it", () => {
    const world = new SchedulerWorld({ numBlocks: 6 });
    world.addOne(tokens(60));
    world.step();
    const large = world.addOne(tokens(60, 100));
    const slow = world.addOne([200], { priority: 1 });
    const equal = world.addOne([300]);
    world.step();
    expect([large, slow, equal].map(({ status }) => status)).toEqual([
      "waiting",
      "waiting",
      "running",
    ]);
  });

  it("chooses the victim of a full pool by priority first, whatever it costs", () => {
    const world = new SchedulerWorld({ numBlocks: 5 });
    const first = world.addOne(tokens(15));
    const slow = world.addOne(tokens(33, 100), { priority: 1 });
    const cheap = world.addOne(tokens(15, 200));
    world.step();
    world.step();
    world.step(); // two need a second block
    expect([first, slow, cheap].map(({ status }) => status)).toEqual([
      "running",
      "waiting",
      "running",
    ]);
    expect([...world.events][0]).toMatchObject({ kind: "preempt", reason: "blocks", requestId: 1 });
  });

  it("gives those behind a victim their rows in the same step", () => {
    const world = new SchedulerWorld({ numBlocks: 6, blockSize: 4 });
    const runners = [1, 2, 0].map((priority, i) =>
      world.addOne(tokens(8, 100 * i), { priority, maxTokens: 8 }),
    );
    world.step();
    const { step } = world.schedule();
    // Each needs a third block: the second goes, and its two are enough for the others.
    expect(runners.map(({ status }) => status)).toEqual(["running", "waiting", "running"]);
    expect(step.rows).toHaveLength(2);
  });

  it("ages: whoever has waited long enough goes before later requests of better priority", () => {
    const world = new SchedulerWorld(ONE_SLOT);
    const old = world.addOne([1], { priority: 1 });
    world.clockMs = AGING_MS - 1;
    const early = world.addOne([2]);
    world.clockMs = AGING_MS + 1;
    const late = world.addOne([3]);
    expect(orderOfRunning(world)).toEqual([early, old, late]);
  });

  it("does not preempt whoever has aged past the one that waits, and so would only come back at once", () => {
    const world = new SchedulerWorld(ONE_SLOT);
    const old = world.addOne(tokens(20), { priority: 1 });
    world.step();
    world.clockMs = AGING_MS + 1;
    const late = world.addOne(tokens(20, 100));
    for (let i = 0; i < 10; i++) world.step();
    expect([old.status, late.status]).toEqual(["running", "waiting"]);
    expect(world.scheduler.residents.numPreemptions).toBe(0);
  });

  it("brings all to an end over random priorities, lengths and aborts, each with its tokens", () => {
    const request = fc.record({
      length: fc.integer({ min: 1, max: 12 }),
      maxTokens: fc.integer({ min: 1, max: 12 }),
      priority: fc.integer({ min: -2, max: 2 }),
      isAborted: fc.nat(5).map((n) => n === 0),
      stepsBefore: fc.nat(4),
    });
    fc.assert(
      fc.property(fc.array(request, { minLength: 5, maxLength: 25 }), (requests) => {
        const world = new SchedulerWorld({ numBlocks: 6, blockSize: 4, maxSequences: 4 });
        const sequences: Sequence[] = [];
        const step = () => {
          world.clockMs += 300;
          if (world.outcomes.requests.size > 0) world.step();
        };
        for (const [i, { length, maxTokens, priority, isAborted, stepsBefore }] of [
          ...requests.entries(),
        ]) {
          for (let n = 0; n < stepsBefore; n++) step();
          sequences.push(world.addOne(tokens(length, 100 * i), { maxTokens, priority }));
          const last = sequences[sequences.length >> 1]!;
          if (isAborted && last.status !== "finished") world.finish(last, "abort");
        }
        for (let n = 0; world.outcomes.requests.size > 0; n++) {
          expect(n).toBeLessThan(2000);
          step();
        }
        for (const [i, { numOutputTokens, finishReason }] of sequences.entries()) {
          if (finishReason === "length") expect(numOutputTokens).toBe(requests[i]!.maxTokens);
          else expect(finishReason).toBe("abort");
        }
        expect(world.numFree).toBe(6);
      }),
      { numRuns: 100 },
    );
  });
});

describe("Scheduler: sequences that do not fit", () => {
  it("are passed over by those that do, and keep their places", () => {
    const world = new SchedulerWorld({ numBlocks: 8 });
    world.addOne(tokens(80));
    world.step();
    const large = [1, 2, 3].map((i) => world.addOne(tokens(60, 100 * i)));
    const small = world.addOne(tokens(3, 500));
    world.step();
    expect(small.status).toBe("running");
    expect(world.waiting).toEqual(large);
    expect(large.map(({ numSkips }) => numSkips)).toEqual([1, 1, 1]);
  });

  it.each([
    ["one at a time", 1],
    ["many in a step", 7],
  ])("are overtaken %s, MAX_SKIPS times at most", (_, perStep) => {
    const world = new SchedulerWorld({ numBlocks: 20 });
    const holder = world.addOne(tokens(160), { maxTokens: 100 });
    world.step();
    const large = world.addOne(tokens(170, 1000));
    let numOvertaking = 0;
    for (let i = 0; i < 3 * MAX_SKIPS; i++) {
      for (let n = 0; n < perStep; n++) world.addOne([2000 + perStep * i + n], { maxTokens: 1 });
      const before = world.outcomes.requests.size;
      world.step();
      numOvertaking += before - world.outcomes.requests.size; // they end with their first token
      expect(large.status).toBe("waiting");
    }
    expect(numOvertaking).toBe(MAX_SKIPS);
    expect(large.numSkips).toBe(MAX_SKIPS);
    world.finish(holder);
    world.step();
    expect(large.status).toBe("running");
  });

  it("are not overtaken beyond it where a better priority is passed over meanwhile", () => {
    const world = new SchedulerWorld({ numBlocks: 20 });
    world.addOne(tokens(160));
    world.step();
    const low = world.addOne(tokens(170, 1000), { priority: 1 });
    low.numSkips = MAX_SKIPS;
    const better = world.addOne(tokens(170, 2000));
    world.clockMs = 2 * AGING_MS;
    const late = world.addOne([3000]);
    world.step();
    expect([low, better, late].map(({ status }) => status)).toEqual(Array(3).fill("waiting"));
  });

  it("for want of slots, such as n samples, get them when they are free, in their turn", () => {
    const world = new SchedulerWorld({ maxSequences: 4, numBlocks: 50 });
    const runners = [0, 1, 2].map((i) => world.addOne([100 * i], { maxTokens: 1000 }));
    world.step();
    const samples = world.add(tokens(4, 900), { n: 3 });
    for (let i = 0; i < 5; i++) {
      world.addOne([1000 + i], { maxTokens: 1 });
      world.step();
    }
    expect(samples[0]).toMatchObject({ status: "waiting", numSkips: 5 });
    world.finish(runners[0]!);
    world.finish(runners[1]!);
    world.step();
    expect(samples.map(({ status }) => status)).toEqual(["running", "running", "running"]);
  });

  it("are tried a bounded number a step", () => {
    const world = new SchedulerWorld({ numBlocks: 8 });
    world.addOne(tokens(60));
    world.step();
    const large = Array.from({ length: 40 }, (_, i) => world.addOne(tokens(100, 1000 * i)));
    const small = world.addOne([5]);
    world.step();
    expect(small.status).toBe("waiting");
    for (const one of large.slice(0, 30)) world.finish(one, "abort");
    world.step();
    expect(small.status).toBe("running");
  });
});

describe("Scheduler: longest cached prefix first", () => {
  const LONGEST = { ...ONE_SLOT, waitingOrder: "longest-prefix" as const };

  /** A world whose cache has the prefix of `tokens(64)`. */
  function createWarm(): SchedulerWorld {
    const world = new SchedulerWorld(LONGEST);
    const warm = world.addOne(tokens(64), { maxTokens: 1 });
    world.step();
    expect(warm.status).toBe("finished");
    return world;
  }

  it("admits by cached tokens, equal ones in order of arrival", () => {
    const world = createWarm();
    const cold = world.addOne(tokens(20, 500));
    const half = world.addOne([...tokens(32), 900]);
    const whole = world.addOne([...tokens(64), 900]);
    const cold2 = world.addOne(tokens(20, 700));
    expect(orderOfRunning(world)).toEqual([whole, half, cold, cold2]);
  });

  it("does not go before a better priority", () => {
    const world = createWarm();
    const whole = world.addOne([...tokens(64), 900], { priority: 1 });
    const cold = world.addOne(tokens(20, 500));
    expect(orderOfRunning(world)).toEqual([cold, whole]);
  });

  it("overtakes nobody more than MAX_SKIPS times", () => {
    const world = createWarm();
    const colds = [world.addOne(tokens(20, 500)), world.addOne(tokens(20, 700))];
    let numOvertaking = 0;
    while (colds[0]!.status === "waiting") {
      const hit = world.addOne([...tokens(64), 900 + numOvertaking], { maxTokens: 1 });
      world.step();
      if (hit.status === "finished") numOvertaking += 1;
    }
    expect(numOvertaking).toBe(MAX_SKIPS);
    world.finish(colds[0]!);
    world.step();
    expect(colds[1]!.status).toBe("running");
  });

  it("also lets one that is starved go that is not the first in line", () => {
    const world = createWarm();
    const cold = world.addOne(tokens(20, 500), { maxTokens: 1 });
    cold.numSkips = MAX_SKIPS - 1;
    world.addOne([...tokens(64), 900], { maxTokens: 1 });
    world.step();
    expect(cold).toMatchObject({ status: "waiting", numSkips: MAX_SKIPS });
    // An urgent one comes and goes first, but nobody else.
    const urgent = world.addOne(tokens(20, 700), { maxTokens: 1, priority: -1 });
    const hit = world.addOne([...tokens(64), 901], { maxTokens: 1 });
    world.step();
    world.step();
    expect([urgent, cold, hit].map(({ status }) => status)).toEqual([
      "finished",
      "finished",
      "waiting",
    ]);
  });
});
