import { describe, expect, it } from "vitest";
import { GREEDY } from "./sampling.ts";
import { MAX_SKIPS } from "./scheduler.ts";
import { EngineWorld, tokens } from "./testing/engineWorld.ts";

/** Steps of 10 ms. */
const SLOW = { endTokens: new Set<number>(), timing: { stepMs: () => 10, latencyMs: 0 } };

describe("Engine: deadlines", () => {
  it("end a request with what it has, in the first step after its time", async () => {
    const world = new EngineWorld(SLOW);
    world.add("late", tokens(5), { maxTokens: 50, deadlineMs: 45 });
    world.add("other", tokens(5, 30), { maxTokens: 20 });
    await world.run();
    expect(world.of("late")).toMatchObject({ finishReason: "deadline" });
    expect(world.of("late").tokens).toHaveLength(5);
    expect(world.of("other").tokens).toHaveLength(20);
    world.checkDelivered();
    expect(world.engine.events()).toEqual([
      { kind: "deadline", timeMs: 50, stepId: 5, requestId: "late", index: 0, outputTokens: 5 },
    ]);
    expect(world.engine.stats().metrics.request_success).toMatchObject({ deadline: 1, length: 1 });
  });

  it("end what waits, all samples, and beams with the hypotheses of the moment", async () => {
    const world = new EngineWorld({ ...SLOW, maxSequences: 4 });
    const beam = { width: 2, lengthPenalty: 1, earlyStopping: true };
    world.add("samples", tokens(5), { n: 2, maxTokens: 50, deadlineMs: 35 });
    world.add("beams", tokens(5), { n: 2, sampling: GREEDY, beam, maxTokens: 50, deadlineMs: 35 });
    world.add("waiting", tokens(5), { maxTokens: 50, deadlineMs: 35 });
    await world.run();
    for (const { finishReason, tokens: cut, request } of world.received.values()) {
      expect(finishReason).toBe("deadline");
      expect(cut).toHaveLength(request.id === "waiting" ? 0 : 4);
    }
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
    expect(world.engine.events()).toHaveLength(5);
  });

  it("mean nothing to requests that have ended, nor to later ones of the same id", async () => {
    const world = new EngineWorld(SLOW);
    world.add("a", tokens(5), { maxTokens: 2, deadlineMs: 100 });
    await world.run();
    world.add("a", tokens(5), { maxTokens: 30 });
    await world.run();
    expect(world.of("a")).toMatchObject({ finishReason: "length" });
    expect(world.of("a").tokens).toHaveLength(30);
    expect(world.engine.events()).toEqual([]);
  });

  it("come as news although nothing else is to do", async () => {
    const world = new EngineWorld(SLOW);
    world.add("a", tokens(5), { deadlineMs: 1 });
    world.clockMs = 5;
    expect(await world.engine.step()).toMatchObject([{ finishReason: "deadline", tokens: [] }]);
    expect(world.engine.hasWork).toBe(false);
    expect(world.executor.steps).toEqual([]);
  });
});

describe("Engine: stalls", () => {
  /** A world in which a long request runs and a large one waits for its blocks. */
  function createStalled() {
    const world = new EngineWorld({ ...SLOW, numBlocks: 16, maxContext: 64, stallMs: 100 });
    world.add("long", tokens(40), { maxTokens: 24 });
    world.add("large", tokens(40, 60), { maxTokens: 4 });
    return world;
  }

  it("are named, with what the request lacks, once in a while", async () => {
    const world = createStalled();
    for (let i = 0; i < 25; i++) await world.step();
    expect(world.engine.stats().stalled).toEqual([{ requestId: "large", index: 0, waitedMs: 250 }]);
    const stalls = world.engine.events().filter(({ kind }) => kind === "stall");
    expect(stalls).toMatchObject([
      { timeMs: 100, requestId: "large", waitedMs: 100 },
      { timeMs: 200, requestId: "large", waitedMs: 200 },
    ]);
    const [first] = stalls;
    expect(first?.kind === "stall" && first.why).toMatch(
      /^it needs 10 blocks and 1 slots; \d+ of 16 KV blocks and 7 slots are free$/,
    );
    await world.run();
    expect(world.engine.stats().stalled).toEqual([]);
    world.checkDelivered();
  });

  it("are logged however often somebody looks at the statistics", async () => {
    const world = createStalled();
    for (let i = 0; i < 25; i++) {
      await world.step();
      world.engine.stats();
    }
    expect(world.engine.events().filter(({ kind }) => kind === "stall")).toHaveLength(2);
  });

  it("name nobody who gets on, however long that takes", async () => {
    const world = new EngineWorld({ ...SLOW, stallMs: 100, maxContext: 300, numBlocks: 80 });
    world.add("a", tokens(10), { maxTokens: 200 });
    while (world.engine.hasWork) {
      await world.step();
      expect(world.engine.stats().stalled).toEqual([]);
    }
  });
});

describe("Engine: what a long wait costs", () => {
  it("gives every decoding sequence a token in every step beside prompts of any length", async () => {
    const world = new EngineWorld({ ...SLOW, maxRows: 24, maxContext: 900, numBlocks: 600 });
    for (let i = 0; i < 4; i++) world.add(i, tokens(4, 20 * i), { maxTokens: 60 });
    await world.step();
    for (let i = 4; i < 7; i++) world.add(i, tokens(290 * (i - 3), i), { maxTokens: 2 });
    for (let i = 1; i < 30; i++) {
      await world.step();
      for (let id = 0; id < 4; id++) expect(world.of(id).tokens).toHaveLength(1 + i);
    }
    await world.run();
    world.checkDelivered();
    const { inter_token_latency_seconds: latency } = world.engine.stats().metrics;
    expect(latency.p99).toBeCloseTo(0.01);
  });

  it("lets a large request in after MAX_SKIPS others, however many small ones come", async () => {
    const world = new EngineWorld({ ...SLOW, numBlocks: 16, maxContext: 64 });
    world.add("long", tokens(20), { maxTokens: 44 });
    await world.step();
    world.add("large", tokens(50, 200), { maxTokens: 4 });
    const hasBegun = () => world.executor.steps.at(-1)!.rows.some(({ token }) => token === 200);
    const numServed = () =>
      [...world.received].filter(
        ([key, { finishReason }]) => key.startsWith("small") && finishReason,
      ).length;
    let numBefore = 0;
    for (let i = 0; !hasBegun(); i++) {
      expect(i).toBeLessThan(100);
      numBefore = numServed();
      for (let n = 0; n < 3; n++) world.add(`small ${i}.${n}`, [i, n], { maxTokens: 1 });
      await world.step();
    }
    expect(numBefore).toBe(MAX_SKIPS); // more of them come in behind it in its own first step
    await world.run();
    world.checkDelivered();
  });
});
