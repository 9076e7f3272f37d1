import { describe, expect, it } from "vitest";
import { GREEDY } from "./sampling.ts";
import { SchedulerWorld, tokens } from "./testing/schedulerWorld.ts";

const LATE = { deadlineMs: 3_600_000 };

describe("Deadlines", () => {
  it("are forgotten with their requests, whichever way those end", () => {
    const world = new SchedulerWorld({ numBlocks: 100 });
    const { outcomes } = world;
    const ids = () => [...outcomes.requests.keys()];
    world.addOne(tokens(5), { ...LATE, maxTokens: 1 });
    world.add(tokens(5, 20), { ...LATE, n: 2, maxTokens: 3 });
    const beam = { width: 2, lengthPenalty: 1, earlyStopping: true };
    world.addOne(tokens(5, 40), { ...LATE, beam, sampling: GREEDY, maxTokens: 2 });
    world.addOne(tokens(5, 60), LATE);
    world.addOne(tokens(5, 80));
    expect(outcomes.deadlines.size).toBe(4);
    world.step();
    expect(outcomes.deadlines.size).toBe(3);
    for (let i = 0; i < 3; i++) world.step();
    expect(ids()).toHaveLength(2);
    expect(outcomes.deadlines.size).toBe(1);
    for (const id of ids()) outcomes.end(outcomes.requests.get(id), "abort");
    expect(outcomes.deadlines.size).toBe(0);
    expect(outcomes.deadlines.nextMs).toBe(Number.POSITIVE_INFINITY);
  });

  it("are given once, in order, when their time has come", () => {
    const world = new SchedulerWorld();
    const { deadlines } = world.outcomes;
    for (const deadlineMs of [30, 10, 20, undefined]) {
      world.addOne(tokens(5), deadlineMs === undefined ? {} : { deadlineMs });
    }
    expect(deadlines.nextMs).toBe(10);
    expect(deadlines.takeLate(9)).toEqual([]);
    expect(deadlines.takeLate(20).map(({ id }) => id)).toEqual([1, 2]);
    expect(deadlines.takeLate(20)).toEqual([]);
    expect(deadlines.nextMs).toBe(30);
    // One that was taken may still end.
    for (const request of [...world.outcomes.requests.values()]) {
      world.outcomes.end(request, "deadline");
    }
    expect(deadlines.size).toBe(0);
  });
});
