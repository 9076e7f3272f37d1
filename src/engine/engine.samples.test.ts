import { describe, expect, it } from "vitest";
import { QuireError } from "../errors.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";
import { expectedTokens } from "./testing/pagedExecutor.ts";

const NO_END = { endTokens: new Set<number>() };

describe("Engine: samples of one prompt", () => {
  it("cost one prefill and floor(P / B) + n * ceil((P mod B + out) / B) blocks at most", async () => {
    for (const length of [15, 16, 17]) {
      const world = new EngineWorld({ ...NO_END, numBlocks: 100 });
      const maxTokens = 9;
      world.add("a", tokens(length), { n: 4, maxTokens });
      await world.run();
      world.checkDelivered();
      const { rows, kvBlocksPeak, prefixCacheQueries } = world.engine.stats();
      expect(rows).toBe(length + 4 * (maxTokens - 1));
      expect(prefixCacheQueries).toBe(length);
      const most = Math.floor(length / 4) + 4 * Math.ceil(((length % 4) + maxTokens) / 4);
      expect(kvBlocksPeak).toBeLessThanOrEqual(most);
    }
  });

  it("are each what a request of its own with that seed says", async () => {
    const world = new EngineWorld(NO_END);
    world.add("samples", tokens(11), { n: 4, maxTokens: 12, sampling: withSeed(40) });
    for (let i = 0; i < 4; i++) {
      world.add(i, tokens(11), { maxTokens: 12, sampling: withSeed(40 + i) });
    }
    await world.run();
    world.checkDelivered();
    for (let i = 0; i < 4; i++) expect(world.of("samples", i).tokens).toEqual(world.of(i).tokens);
  });

  it("with penalties count their own tokens only", async () => {
    const world = new EngineWorld(NO_END);
    const sampling = withSeed(3, { frequencyPenalty: 0.5, repetitionPenalty: 1.3 });
    world.add("a", tokens(7), { n: 3, maxTokens: 20, sampling });
    for (let i = 0; world.engine.hasWork; i++) {
      await world.step();
      if (i === 5) world.engine.preemptAll();
    }
    world.checkDelivered();
  });

  it("copy at most a block a slot in a step, the last writer none", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 6 });
    world.add("a", tokens(3), { n: 6, maxTokens: 4 });
    await world.run();
    world.checkDelivered();
    expect(world.executor.steps.map(({ copies }) => copies.length)).toEqual([0, 5, 0, 0]);
  });

  it("that are more than there are slots run in turns and compute the prompt once", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 3 });
    world.add("a", tokens(21), { n: 8, maxTokens: 6 });
    await world.run();
    world.checkDelivered();
    // Those that wait on their own find the prompt cached, all but the token that they are drawn from.
    expect(world.engine.stats().rows).toBe(21 + 8 * 5 + 5);
  });

  it("are preempted one by one and lose nothing", async () => {
    const world = new EngineWorld({ ...NO_END, numBlocks: 14 });
    world.add("a", tokens(10), { n: 4, maxTokens: 30 });
    await world.run();
    world.checkDelivered();
    expect(world.engine.stats().preemptions).toBeGreaterThan(0);
  });

  it("end one by one: each stop gives its blocks and slot back at once", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(16), { n: 4, maxTokens: 30 });
    for (let i = 0; i < 8; i++) await world.step();
    const used: number[] = [];
    for (const index of [2, 0, 3]) {
      world.note([world.engine.finishSequence("a", index)]);
      used.push(world.engine.stats().kvBlocksUsed);
      expect(world.engine.stats().running).toBe(3 - used.length + 1);
    }
    expect(used).toEqual([4 + 3 * 2, 4 + 2 * 2, 4 + 2]);
    await world.run();
    world.checkDelivered();
  });
});

describe("Engine: best of several samples", () => {
  const sampling = withSeed(9);

  /** Samples of the prompt with the means of their log-probabilities, best first. */
  function ranked(prompt: readonly number[], count: number, maxTokens: number, end: number) {
    return Array.from({ length: count }, (_, i) => {
      const own = { ...sampling, seed: [9 + i, 0] as const };
      const answer = expectedTokens(prompt, own, maxTokens, new Set([end]));
      const numTokens = answer.tokens.length + (answer.finishReason === "stop" ? 1 : 0);
      return { ...answer, mean: answer.cumulativeLogprob / numTokens };
    }).sort((a, b) => b.mean - a.mean);
  }

  it("delivers the n with the best mean log-probability when all have ended, best first", async () => {
    const prompt = tokens(13);
    const world = new EngineWorld({ endTokens: new Set([11]) });
    world.add("a", prompt, { n: 2, bestOf: 6, maxTokens: 40, sampling });
    let numDelivered = 0;
    while (world.engine.hasWork) {
      const outputs = await world.engine.step();
      if (outputs.length > 0) expect(world.engine.hasWork).toBe(false);
      numDelivered += outputs.length;
      world.note(outputs);
    }
    expect(numDelivered).toBe(2);
    const expected = ranked(prompt, 6, 40, 11);
    expect(new Set(expected.map(({ finishReason }) => finishReason)).size).toBe(2);
    for (const index of [0, 1]) {
      const { tokens: delivered, finishReason } = world.of("a", index);
      expect({ tokens: delivered, finishReason }).toEqual({
        tokens: expected[index]!.tokens,
        finishReason: expected[index]!.finishReason,
      });
    }
    expect(world.engine.stats()).toMatchObject({ running: 0, kvBlocksUsed: 0 });
  });

  it("gives log-probabilities only if they were asked for", async () => {
    for (const logprobs of [undefined, 2]) {
      const world = new EngineWorld(NO_END);
      world.engine.add({
        id: "a",
        promptTokens: tokens(5),
        n: 1,
        bestOf: 3,
        maxTokens: 4,
        stopTokenIds: [],
        sampling: { ...sampling, logprobs },
      });
      const outputs = [];
      while (world.engine.hasWork) outputs.push(...(await world.engine.step()));
      expect(outputs).toHaveLength(1);
      const given = outputs[0]!.logprobs;
      if (logprobs === undefined) expect(given).toBeUndefined();
      else expect(given?.map(({ top }) => top.length)).toEqual([2, 2, 2, 2]);
      expect(outputs[0]!.cumulativeLogprob).toBeLessThan(0);
    }
  });

  it("ranks what there is when it is aborted or late", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(4), { n: 2, bestOf: 3, maxTokens: 30, sampling });
    for (let i = 0; i < 4; i++) await world.step();
    const outputs = world.engine.abort("a");
    expect(outputs.map(({ index, finishReason }) => [index, finishReason])).toEqual([
      [0, "abort"],
      [1, "abort"],
    ]);
    for (const { tokens: cut } of outputs) expect(cut).toHaveLength(4);
    expect(world.engine.hasWork).toBe(false);
  });

  it("leaves single samples alone: none can be ended from outside before all are ranked", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(5), { n: 1, bestOf: 2, maxTokens: 5, sampling });
    await world.step();
    expect(world.engine.finishSequence("a", 0)).toBeUndefined();
    await world.run();
    world.checkDelivered();
  });

  it("is refused below n and beside beams", () => {
    const world = new EngineWorld(NO_END);
    const beam = { width: 2, lengthPenalty: 1, earlyStopping: true as const };
    for (const fields of [
      { n: 3, bestOf: 2 },
      { bestOf: 2, beam, sampling: withSeed(0, { temperature: 0 }) },
    ]) {
      expect(() => world.add("a", [1], fields)).toThrow(QuireError);
    }
    expect(world.engine.hasWork).toBe(false);
  });
});
