import { describe, expect, it } from "vitest";
import { DEFAULT_STEP_BUDGET_MS } from "./engine.ts";
import { GREEDY } from "./sampling.ts";
import { MAX_SKIPS } from "./scheduler.ts";
import type { Step, StepResult } from "./step.ts";
import { POSITIONS_PER_ROW } from "./stepBudget.ts";
import { EngineWorld, tokens } from "./testing/engineWorld.ts";

const NEVER_ANSWERS = { submit: () => ({ result: new Promise<never>(() => {}) }) };

/** Steps of 10 ms. */
const SLOW = { endTokens: new Set<number>(), timing: { stepMs: () => 10, latencyMs: 0 } };

describe("Engine: deadlines", () => {
  it("end a request with what it has, in the first step after its time", async () => {
    const world = new EngineWorld(SLOW);
    world.add("late", tokens(2), { maxTokens: 50, deadlineMs: 45 });
    world.add("other", tokens(2, 30), { maxTokens: 20 });
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
    world.add("samples", tokens(2), { n: 2, maxTokens: 50, deadlineMs: 35 });
    world.add("beams", tokens(2), { n: 2, sampling: GREEDY, beam, maxTokens: 50, deadlineMs: 35 });
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

  it("are met while the back end does not answer, as often as need be", async () => {
    const world = new EngineWorld(SLOW);
    world.add("running", tokens(5), { n: 2, maxTokens: 20, deadlineMs: 100 });
    world.add("waiting", tokens(5), { maxTokens: 20, deadlineMs: 300 });
    await world.step();
    world.engine.replaceExecutor(NEVER_ANSWERS);
    for (const [id, clockMs] of [
      ["running", 100],
      ["waiting", 300],
    ] as const) {
      const news = world.engine.step();
      await world.advance(1000);
      world.note(await news);
      expect(world.of(id).finishReason).toBe("deadline");
      expect(world.engine.events().at(-1)).toMatchObject({ kind: "deadline", timeMs: clockMs });
      world.clockMs = clockMs;
    }
    expect(world.engine.hasWork).toBe(false);
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
    expect(world.numTimers).toBe(0);
    // What comes meanwhile has its deadline too, and what has none is not lost.
    world.add("later", tokens(5), { maxTokens: 20 });
    const held = world.engine.step();
    await world.advance(0);
    world.add("hasty", tokens(5), { deadlineMs: 40 });
    await world.advance(1000);
    world.note(await held);
    expect(world.engine.events().at(-1)).toMatchObject({ requestId: "hasty", timeMs: 340 });
    const again = world.engine.step();
    world.replaceExecutor();
    expect(await again).toEqual([]);
    await world.run();
    world.checkDelivered();
  });

  it("leave no timer behind", async () => {
    const world = new EngineWorld(SLOW);
    world.add("a", tokens(5), { maxTokens: 20, deadlineMs: 5000 });
    while (world.engine.hasWork) {
      await world.step();
      expect(world.numTimers).toBe(0);
    }
    expect(world.of("a").tokens).toHaveLength(20);
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

  it("of a back end that does not answer are reported as long as it does not", async () => {
    const world = new EngineWorld({ ...SLOW, stallMs: 100 });
    world.add("a", tokens(4), { maxTokens: 20 });
    await world.step();
    world.engine.replaceExecutor(NEVER_ANSWERS);
    const waiting = world.engine.step();
    await world.advance(350);
    expect(world.engine.events().filter(({ kind }) => kind === "stall")).toMatchObject(
      [110, 210, 310].map((timeMs) => ({
        timeMs,
        requestId: "a",
        waitedMs: timeMs - 10,
        why: "it runs, and the back end has not answered",
      })),
    );
    world.replaceExecutor();
    expect(await waiting).toEqual([]);
    await world.run();
    world.checkDelivered();
  });

  it("are not what a machine that sleeps makes, in a step or between two", async () => {
    const world = new EngineWorld({ ...SLOW, stallMs: 100 });
    world.add("a", tokens(4), { maxTokens: 20 });
    await world.step();
    world.clockMs += 3_600_000;
    await world.step();
    let answer = (_: StepResult) => {};
    const result = new Promise<StepResult>((resolve) => {
      answer = resolve;
    });
    world.engine.replaceExecutor({ submit: () => ({ result }) });
    const step = world.engine.step();
    await world.sleep(3_600_000);
    expect(world.engine.stats().stalled).toEqual([]);
    answer({ tokens: [], logprobs: [], scores: [] });
    await step;
    expect(world.engine.events().filter(({ kind }) => kind === "stall")).toEqual([]);
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

describe("Engine: a clock that goes back", () => {
  it("ends no request and breaks no step", async () => {
    const world = new EngineWorld({ endTokens: new Set(), numHostBlocks: 8, numBlocks: 12 });
    world.clockMs = 1e6;
    for (let i = 0; i < 3; i++) world.add(i, tokens(6, 20 * i), { maxTokens: 15 });
    world.executor.onFlight = () => {
      world.clockMs -= 100;
    };
    await world.run();
    world.checkDelivered();
    const { inter_token_latency_seconds: latency } = world.engine.stats().metrics;
    expect(latency.count).toBe(3 * 14);
    expect(world.engine.stats().msPerRow).toBeGreaterThanOrEqual(0);
  });
});

describe("Engine: what a long wait costs", () => {
  it("gives every decoding sequence a token in every step beside prompts of any length", async () => {
    const world = new EngineWorld({ ...SLOW, maxRows: 24, maxContext: 900, numBlocks: 600 });
    for (let i = 0; i < 4; i++) world.add(i, [20 * i], { maxTokens: 60 });
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

  it("keeps steps short when many go on deep in what is cached, whatever rows cost at the start", async () => {
    const stepMs = ({ rows }: Step) =>
      10 + 0.3 * rows.reduce((sum, { position }) => sum + 1 + position / POSITIONS_PER_ROW, 0);
    const sizes = { blockSize: 16, numBlocks: 400, maxRows: 256, maxContext: 5000 };
    const world = new EngineWorld({ ...SLOW, ...sizes, timing: { stepMs, latencyMs: 0 } });
    const document = Array.from({ length: 4000 }, (_, i) => (i * i) % 97);
    world.add("document", document, { maxTokens: 1 });
    await world.run();
    world.add("short", tokens(700, 100), { maxTokens: 4 });
    await world.run();
    const { length } = world.executor.steps;
    for (let i = 0; i < 6; i++) {
      world.add(i, [...document, ...tokens(60, 200 * i)], { maxTokens: 4 });
    }
    await world.run();
    world.checkDelivered();
    for (let i = 0; i < 6; i++) expect(world.of(i).cachedTokens).toBe(4000);
    const longest = Math.max(...world.executor.steps.slice(length).map(stepMs));
    expect(longest).toBeLessThan(1.5 * DEFAULT_STEP_BUDGET_MS);
    expect(longest).toBeGreaterThan(0.5 * DEFAULT_STEP_BUDGET_MS);
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
