import { describe, expect, it } from "vitest";
import { GREEDY } from "./sampling.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";

/** A device that works 5 ms on a step and needs 5 ms more to bring its result. */
const SLOW_RESULTS = { stepMs: () => 5, latencyMs: 5 };
const PIPELINE = {
  endTokens: new Set<number>(),
  maxStepsInFlight: 3,
  maxContext: 300,
  numBlocks: 400,
  timing: SLOW_RESULTS,
};

/** A world in which two steps are in flight, and a request that needs many steps. */
async function createDeep(sizes: ConstructorParameters<typeof EngineWorld>[0] = {}) {
  const world = new EngineWorld({ ...PIPELINE, ...sizes });
  world.add("a", tokens(5), { maxTokens: 200, sampling: withSeed(1) });
  for (let i = 0; i < 20; i++) await world.step();
  expect(world.executor.steps.length).toBeGreaterThan(20);
  return world;
}

describe("Engine: steps in flight", () => {
  it("are as many as pay: two where results take a while to come back", async () => {
    const world = await createDeep();
    for (let i = 0; i < 40; i++) await world.step();
    const { clockMs } = world;
    for (let i = 0; i < 16; i++) await world.step();
    expect(world.engine.stats().stepsInFlight).toBeGreaterThanOrEqual(2);
    expect(world.clockMs - clockMs).toBeLessThanOrEqual(16 * 5);
    await world.run();
    world.checkDelivered();
  });

  it("are one where more only delay", async () => {
    const world = new EngineWorld({ ...PIPELINE, timing: { stepMs: () => 5, latencyMs: 0 } });
    world.add("a", tokens(5), { maxTokens: 290 });
    let deep = 0;
    for (let i = 0; world.engine.hasWork; i++) {
      await world.step();
      if (i >= 100 && world.engine.stats().stepsInFlight > 1) deep += 1;
    }
    // A deeper pipeline is tried half of the time, never kept.
    expect(deep).toBeLessThanOrEqual(100);
    world.checkDelivered();
  });

  it("give the same tokens as one at a time, for all kinds of requests", async () => {
    const answers = async (maxStepsInFlight: number) => {
      const world = new EngineWorld({ ...PIPELINE, maxStepsInFlight, copyPeriod: 6 });
      const beam = { width: 2, lengthPenalty: 1, earlyStopping: true };
      const penalties = withSeed(3, { repetitionPenalty: 1.2 });
      world.add("sampled", tokens(9), { maxTokens: 60, sampling: withSeed(2) });
      world.add("penalties", tokens(12), { maxTokens: 60, sampling: penalties });
      world.add("samples", tokens(7), { n: 2, maxTokens: 50 });
      world.add("drafts", tokens(9), { maxTokens: 60, numSpeculativeTokens: 4 });
      world.add("beams", tokens(9), { n: 2, maxTokens: 40, sampling: GREEDY, beam });
      await world.run();
      world.checkDelivered();
      expect(world.executor.mostInFlight).toBe(maxStepsInFlight > 1 ? 2 : 1);
      return [...world.received.values()].map(({ tokens: delivered }) => delivered);
    };
    expect(await answers(2)).toEqual(await answers(1));
  });

  it("waste no row at maxTokens: rows are prompt + maxTokens - 1", async () => {
    const world = await createDeep();
    await world.run();
    expect(world.engine.stats()).toMatchObject({ rows: 5 + 199, steps: 1 + 200 });
    for (const maxTokens of [1, 2, 3, 4]) {
      const { rows } = world.engine.stats();
      world.add(maxTokens, tokens(6, 10 * maxTokens), { maxTokens });
      await world.run();
      expect(world.engine.stats().rows - rows).toBe(6 + maxTokens - 1);
    }
    world.checkDelivered();
  });

  it("that overshoot a stop are discarded, and their blocks and slot are free at once", async () => {
    const plain = await createDeep();
    await plain.run();
    const all = plain.of("a").tokens;
    const stop = all[50]!;
    const world = new EngineWorld(PIPELINE);
    world.add("a", tokens(5), { maxTokens: 200, sampling: withSeed(1), stopTokenIds: [stop] });
    while (world.of("a").finishReason === undefined) await world.step();
    expect(world.of("a").tokens).toEqual(all.slice(0, all.indexOf(stop)));
    expect(world.engine.stats()).toMatchObject({ running: 0, kvBlocksUsed: 0 });
    expect(world.executor.steps.length).toBeGreaterThan(all.indexOf(stop) + 1);
    // The next one takes the slot and the blocks while the overshoot is still in flight.
    world.add("b", tokens(30, 40), { maxTokens: 30 });
    await world.run();
    world.checkDelivered();
  });

  it("do not outlive an abort: each request keeps exactly what was delivered before", async () => {
    const world = await createDeep({ maxSequences: 1 });
    world.add("b", tokens(5, 30), { maxTokens: 40, sampling: withSeed(4) });
    const before = [...world.of("a").tokens];
    world.abort("a");
    expect(world.of("a")).toMatchObject({ finishReason: "abort", tokens: before });
    await world.run();
    expect(world.of("a").tokens).toEqual(before);
    expect(world.of("b").tokens).toHaveLength(40);
    world.checkDelivered();
  });

  it("are dropped by a preemption and drawn again, in order and once", async () => {
    const world = await createDeep();
    for (let i = 0; world.engine.hasWork; i++) {
      await world.step();
      if (i % 10 === 3) world.engine.preemptAll();
    }
    expect(world.of("a").tokens).toHaveLength(200);
    world.checkDelivered();
  });

  it("lose nothing when the pool runs full while they fly", async () => {
    const world = new EngineWorld({ ...PIPELINE, numBlocks: 40, maxContext: 100 });
    for (let i = 0; i < 5; i++) {
      world.add(i, tokens(20, 10 * i), { maxTokens: 60, sampling: withSeed(i) });
    }
    await world.run();
    world.checkDelivered();
    expect(world.engine.stats().preemptions).toBeGreaterThan(3);
    expect(world.executor.mostInFlight).toBeGreaterThan(1);
  });

  it("do not let prefixes be reset under them", async () => {
    const world = await createDeep();
    expect(world.engine.resetPrefixCache()).toBe(false);
    world.engine.preemptAll();
    expect(world.engine.resetPrefixCache()).toBe(true);
    await world.run();
    world.checkDelivered();
  });

  it("are all void when one fails", async () => {
    for (const early of [true, false]) {
      const world = await createDeep();
      const error = new Error("lost");
      world.executor.failure = { error, early };
      await world.stepUntilFailure(error);
      expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 1, kvBlocksCached: 0 });
      world.replaceExecutor();
      await world.run();
      world.checkDelivered();
      expect(world.of("a").tokens).toHaveLength(200);
    }
  });

  it("let newcomers in without waiting for their results", async () => {
    const world = await createDeep();
    const { length } = world.executor.steps;
    world.add("b", tokens(7, 40), { maxTokens: 3 });
    await world.step();
    expect(world.executor.steps[length]?.rows).toHaveLength(1 + 7);
    await world.run();
    world.checkDelivered();
  });
});
