import { describe, expect, it } from "vitest";
import { Engine } from "./engine.ts";
import { GREEDY } from "./sampling.ts";
import { SAMPLED_TOKEN } from "./step.ts";
import { POSITIONS_PER_ROW } from "./stepBudget.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";
import { PagedExecutor } from "./testing/pagedExecutor.ts";

describe("Engine: answers", () => {
  it("delivers what the sequence says alone, one token a step after the prompt", async () => {
    const world = new EngineWorld({ endTokens: new Set() });
    world.add("a", tokens(4), { maxTokens: 6 });
    await world.run();
    expect(world.of("a").tokens).toHaveLength(6);
    expect(world.of("a").finishReason).toBe("length");
    world.checkDelivered();
    expect(world.engine.stats()).toMatchObject({ steps: 6, rows: 4 + 5, generationTokens: 6 });
  });

  it("computes no row for the last token: rows are prompt + maxTokens - 1", async () => {
    const world = new EngineWorld({ endTokens: new Set() });
    world.add("a", tokens(3), { maxTokens: 1 });
    await world.run();
    expect(world.engine.stats().rows).toBe(3);
  });

  it("ends with `stop` at an end token and keeps it out of the tokens", async () => {
    const world = new EngineWorld({ endTokens: new Set(tokens(20, 0)) });
    world.add("a", tokens(5), { maxTokens: 90 });
    await world.run();
    const { finishReason, stopToken, tokens: delivered } = world.of("a");
    expect(finishReason).toBe("stop");
    expect(stopToken).toBeLessThan(20);
    expect(delivered.every((token) => token >= 20)).toBe(true);
    world.checkDelivered();
  });

  it("goes past end tokens with ignoreEos, but not past stop tokens", async () => {
    const world = new EngineWorld({ endTokens: new Set(tokens(97, 0)) });
    world.add("a", tokens(5), { maxTokens: 30, ignoreEos: true });
    await world.run();
    expect(world.of("a")).toMatchObject({ finishReason: "length", stopToken: undefined });
    const stop = world.of("a").tokens[10]!;
    world.add("b", tokens(5), { maxTokens: 30, ignoreEos: true, stopTokenIds: [stop] });
    await world.run();
    expect(world.of("b")).toMatchObject({ finishReason: "stop", stopToken: stop });
    expect(world.of("b").tokens).toEqual(
      world.of("a").tokens.slice(0, world.of("a").tokens.indexOf(stop)),
    );
    world.checkDelivered();
  });

  it("says `length` at the end of the context", async () => {
    const world = new EngineWorld({ maxContext: 20, endTokens: new Set() });
    world.add("a", tokens(15), { maxTokens: 1000 });
    await world.run();
    expect(world.of("a")).toMatchObject({ finishReason: "length" });
    expect(world.of("a").tokens).toHaveLength(5);
  });

  it("leaves sampled tokens to the back end, and spells them out after a preemption", async () => {
    const world = new EngineWorld({ endTokens: new Set(), blockSize: 8 });
    world.add("a", [1, 2, 3]);
    await world.step();
    await world.step();
    world.engine.preemptAll();
    await world.step();
    await world.step();
    const [, second] = world.of("a").tokens;
    expect(world.executor.steps.map(({ rows }) => rows.map(({ token }) => token))).toEqual([
      [1, 2, 3],
      [SAMPLED_TOKEN],
      [second], // what came before is found in the prefix cache
      [SAMPLED_TOKEN],
    ]);
  });

  it("runs n samples with seeds of their own, each as it would run alone", async () => {
    const world = new EngineWorld({ endTokens: new Set() });
    world.add("a", tokens(11), { n: 4, maxTokens: 12 });
    await world.run();
    world.checkDelivered();
    const answers = [0, 1, 2, 3].map((index) => world.of("a", index).tokens.join());
    expect(new Set(answers).size).toBe(4);
    expect(world.of("a", 3).cachedTokens).toBe(11); // all of the first one's prompt
  });

  it("answers many at once in the steps that one needs", async () => {
    const world = new EngineWorld({ endTokens: new Set() });
    for (let i = 0; i < 4; i++) world.add(i, tokens(6, 10 * i), { maxTokens: 24 });
    await world.run();
    expect(world.engine.stats().steps).toBe(24 + 2); // 24 rows of prompts: 4, 8 and 12
    world.checkDelivered();
  });

  it("passes log-probabilities on beside their tokens", async () => {
    const logprobs = { logprob: -0.5, top: [{ token: 5, logprob: -0.5 }] };
    const executor = {
      submit: () => ({
        result: Promise.resolve({ tokens: [5], logprobs: [logprobs], scores: [] }),
      }),
    };
    const world = new EngineWorld();
    world.engine.replaceExecutor(executor);
    world.add("a", [1], { maxTokens: 2, sampling: withSeed(1, { logprobs: 1 }) });
    expect(await world.engine.step()).toMatchObject([{ tokens: [5], logprobs: [logprobs] }]);
    expect(await world.engine.step()).toMatchObject([
      { finishReason: "length", logprobs: [logprobs] },
    ]);
  });
});

describe("Engine: the queue", () => {
  it("lets the 50th concurrent request wait and finish", async () => {
    const world = new EngineWorld({ numBlocks: 64, maxSequences: 4, endTokens: new Set() });
    for (let i = 0; i < 50; i++) world.add(i, [i + 1, 2, 3]);
    await world.step();
    expect(world.engine.stats()).toMatchObject({ running: 4, waiting: 46 });
    await world.run();
    expect(world.of(49).tokens).toHaveLength(8);
    world.checkDelivered();
  });

  it("ends 100 requests of random length with aborts on 64 blocks, and every block is free again", async () => {
    const world = new EngineWorld({ numBlocks: 64, maxSequences: 16, maxContext: 200 });
    let state = 42;
    const random = (below: number) =>
      (state = (Math.imul(state, 48271) >>> 0) % 0x7fffffff) % below;
    for (let i = 0; i < 100; i++) {
      const prompt = Array.from({ length: 1 + random(90) }, () => random(3));
      world.add(i, prompt, { maxTokens: 1 + random(100), sampling: withSeed(i), ignoreEos: true });
    }
    while (world.engine.hasWork) {
      await world.step();
      if (random(8) === 0) world.abort(random(100));
    }
    const reasons = [...world.received.values()].map(({ finishReason }) => finishReason);
    expect(reasons.filter((reason) => reason === "length").length).toBeGreaterThan(50);
    expect(reasons.filter((reason) => reason === "abort").length).toBeGreaterThan(10);
    expect(reasons).not.toContain(undefined);
    world.checkDelivered();
    const stats = world.engine.stats();
    expect(stats).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0, kvBlocksTotal: 64 });
    expect(stats.preemptions).toBeGreaterThan(0);
    expect(stats.kvBlocksPeak).toBeGreaterThan(55);
  });

  it("gives up when it has no work, and takes work later", async () => {
    const world = new EngineWorld();
    expect(await world.engine.step()).toEqual([]);
    world.add("a", [1]);
    await world.run();
    world.add("a", [1]); // the id is free again
    await world.run();
    expect(world.engine.stats().waiting).toBe(0);
  });
});

describe("Engine: invariance", () => {
  const prompts = [
    tokens(30),
    tokens(30, 40),
    tokens(17),
    [...tokens(12), 90, 91],
    [5],
    tokens(41),
  ];

  async function runAll(
    sizes: ConstructorParameters<typeof EngineWorld>[0],
    onStep: (world: EngineWorld, step: number) => void = () => {},
  ): Promise<EngineWorld> {
    const world = new EngineWorld({ endTokens: new Set(), ...sizes });
    const sampling = withSeed(7, { presencePenalty: 0.5 });
    for (const [i, prompt] of prompts.entries()) {
      world.add(i, prompt, { maxTokens: 40, sampling: i % 2 ? sampling : withSeed(i) });
    }
    for (let i = 0; world.engine.hasWork; i++) {
      await world.step();
      onStep(world, i);
    }
    world.checkDelivered();
    for (const received of world.received.values()) expect(received.tokens).toHaveLength(40);
    return world;
  }

  it("gives the same tokens one at a time and all together", async () => {
    await runAll({ maxSequences: 1 });
    await runAll({ maxSequences: 6, numBlocks: 200 });
  });

  it("gives the same tokens when the pool is too small for all", async () => {
    const world = await runAll({ numBlocks: 30 });
    expect(world.engine.stats().preemptions).toBeGreaterThan(2);
  });

  it("gives the same tokens when everything is preempted every few steps", async () => {
    const world = await runAll({ numBlocks: 200 }, (world, i) => {
      if (i % 7 === 6) world.engine.preemptAll();
    });
    expect(world.engine.stats().preemptions).toBeGreaterThan(20);
  });

  it("gives the same tokens when the back end is replaced", async () => {
    await runAll({ numBlocks: 200 }, (world, i) => {
      if (i % 25 === 24) world.replaceExecutor();
    });
  });

  it("gives the same tokens for any number of rows a step and block size", async () => {
    for (const maxRows of [1, 2, 3, 7, 64]) await runAll({ maxRows });
    for (const blockSize of [1, 2, 8, 16, 32]) await runAll({ blockSize, numBlocks: 120 });
  });
});

describe("Engine: prefix caching", () => {
  it("schedules for a second turn only the answer's last token and what is new", async () => {
    const world = new EngineWorld({ endTokens: new Set(), numBlocks: 64, blockSize: 16 });
    world.add("turn 1", tokens(70), { maxTokens: 10 });
    await world.run();
    const rowsBefore = world.engine.stats().rows;
    const history = [...tokens(70), ...world.of("turn 1").tokens];
    world.add("turn 2", [...history, 1, 2, 3], { maxTokens: 1 });
    await world.run();
    // The last token of an answer is never computed, so 79 of 80 tokens are there: 4 full blocks.
    expect(world.of("turn 2").cachedTokens).toBe(79);
    expect(world.engine.stats().rows - rowsBefore).toBe(1 + 3);
    world.checkDelivered();
  });

  it("reports queries and hits in tokens", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(20));
    await world.run();
    world.add("b", tokens(20));
    await world.run();
    expect(world.engine.stats()).toMatchObject({
      prefixCacheQueries: 40,
      prefixCacheHits: 19,
      promptTokens: 40,
    });
  });

  it("keeps an aborted request's prefix", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(16));
    for (let i = 0; i < 3; i++) await world.step();
    world.abort("a");
    world.add("b", [...tokens(16), 50]);
    await world.run();
    expect(world.of("b").cachedTokens).toBe(16);
    world.checkDelivered();
  });
});

describe("Engine: time", () => {
  it("shapes prompt chunks by the measured cost of a row", async () => {
    const executor = new PagedExecutor({
      numBlocks: 64,
      blockSize: 16,
      maxSequences: 4,
      maxRows: 512,
    });
    let clockMs = 0;
    const engine = new Engine({
      executor: {
        submit(step) {
          const positions = step.rows.reduce((sum, { position }) => sum + position + 1, 0);
          clockMs += 6 + (step.rows.length + positions / POSITIONS_PER_ROW) * 0.5;
          return executor.submit(step);
        },
      },
      numBlocks: 64,
      blockSize: 16,
      maxSequences: 4,
      maxRows: 512,
      maxContext: 1000,
      endTokens: new Set(),
      now: () => clockMs,
      stepBudgetMs: 40,
    });
    const request = { n: 1, maxTokens: 3, stopTokenIds: [], sampling: GREEDY };
    engine.add({ ...request, id: 1, promptTokens: tokens(4) });
    while (engine.hasWork) await engine.step();
    engine.add({ ...request, id: 2, promptTokens: tokens(600) });
    while (engine.hasWork) await engine.step();
    const { msPerRow, msPerStep } = engine.stats();
    expect(msPerRow).toBeCloseTo(0.5);
    expect(msPerStep).toBeCloseTo(6);
    // 8, 16, 32 while learning, then (40 - 6) / 0.5 rows' worth, less and less rows with the depth.
    expect(executor.steps.slice(3).map((step) => step.rows.length)).toEqual([
      8, 16, 32, 62, 59, 56, 54, 51, 50, 48, 46, 45, 44, 25, 1, 1,
    ]);
  });
});
