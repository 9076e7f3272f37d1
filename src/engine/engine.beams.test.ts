import { describe, expect, it } from "vitest";
import type { BeamSearchParams } from "./engineRequest.ts";
import { GREEDY } from "./sampling.ts";
import { FEWEST_ROWS } from "./stepBudget.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";
import { layer1Of, tokenLogprobs, VOCABULARY_SIZE } from "./testing/pagedExecutor.ts";

const NO_END = { endTokens: new Set<number>() };

function beams(width: number, fields: Partial<BeamSearchParams> = {}) {
  const beam = { width, lengthPenalty: 1, earlyStopping: false as const, ...fields };
  return { n: width, sampling: GREEDY, beam };
}

/** The best of all continuations of the best `width`, step by step, over the whole vocabulary. */
function plainBeamSearch(prompt: readonly number[], width: number, numTokens: number): number[][] {
  let live = [{ output: [] as number[], sum: 0 }];
  for (let i = 0; i < numTokens; i++) {
    const all = live.flatMap(({ output, sum }) =>
      tokenLogprobs(layer1Of([...prompt, ...output]), 0, VOCABULARY_SIZE).top.map(
        ({ token, logprob }) => ({ output: [...output, token], sum: sum + logprob }),
      ),
    );
    live = all.sort((a, b) => b.sum - a.sum).slice(0, width);
  }
  return live.map(({ output }) => output);
}

describe("Engine: beam search", () => {
  it("finds what a plain beam search finds", async () => {
    for (const width of [1, 2, 4]) {
      const world = new EngineWorld(NO_END);
      world.add("a", tokens(10), { ...beams(width), maxTokens: 9 });
      await world.run();
      const expected = plainBeamSearch(tokens(10), width, 9);
      expect(expected.map((_, index) => world.of("a", index).tokens)).toEqual(expected);
      world.checkDelivered();
      expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
    }
  });

  it("of width 1 takes the most likely token each time", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(6), { ...beams(1), maxTokens: 12 });
    await world.run();
    const greedy: number[] = [];
    while (greedy.length < 12) {
      const { top } = tokenLogprobs(layer1Of([...tokens(6), ...greedy]), 0, 1);
      greedy.push(top[0]!.token);
    }
    expect(world.of("a").tokens).toEqual(greedy);
  });

  it("takes a row a beam and step, and computes the prompt once", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(10), { ...beams(4), maxTokens: 9 });
    await world.run();
    expect(world.executor.steps.map(({ rows }) => rows.length)).toEqual([
      FEWEST_ROWS,
      10 - FEWEST_ROWS,
      ...Array<number>(8).fill(4),
    ]);
  });

  it("counts the tokens of its best beam, each once, with the times between them", async () => {
    const world = new EngineWorld({ ...NO_END, timing: { stepMs: () => 20, latencyMs: 0 } });
    world.add("a", tokens(4), { ...beams(4), n: 1, maxTokens: 9 });
    await world.run();
    const { generationTokens, metrics } = world.engine.stats();
    expect(generationTokens).toBe(9);
    expect(world.of("a").tokens).toHaveLength(9);
    const { count, p50 } = metrics.inter_token_latency_seconds;
    expect(count).toBe(8);
    expect(p50).toBeCloseTo(0.02);
    expect(metrics.request_decode_time_seconds.mean).toBeCloseTo(8 * 0.02);
  });

  it("shares the blocks of what beams have in common and copies at most a block a beam and step", async () => {
    const world = new EngineWorld({ ...NO_END, blockSize: 8 });
    world.add("a", tokens(20), { ...beams(4), maxTokens: 40 });
    let mostShared = 0;
    while (world.engine.hasWork) {
      await world.step();
      const { blocksUsed, logicalBlocks } = world.engine.kvUsage();
      mostShared = Math.max(mostShared, logicalBlocks - blocksUsed);
    }
    world.checkDelivered();
    for (const { copies } of world.executor.steps) expect(copies.length).toBeLessThanOrEqual(4);
    // All four share at least the prompt's two full blocks; later ones share what they said, too.
    expect(mostShared).toBeGreaterThan(3 * 2);
    const { kvBlocksPeak } = world.engine.stats();
    expect(kvBlocksPeak).toBeLessThanOrEqual(2 + 4 * Math.ceil((4 + 40) / 8));
  });

  it.each([true, false, "never"] as const)(
    "ends hypotheses at stop tokens and ranks by length penalty (early stopping: %s)",
    async (earlyStopping) => {
      const reasons = new Set<string | undefined>();
      for (const lengthPenalty of [0, 1, 2]) {
        const world = new EngineWorld({ endTokens: new Set(tokens(8, 0)) });
        const fields = beams(4, { earlyStopping, lengthPenalty });
        world.add("a", tokens(10), { ...fields, maxTokens: 20 });
        world.add("b", tokens(10, 30), { ...fields, n: 2, maxTokens: 20 });
        await world.run();
        world.checkDelivered();
        for (const { finishReason } of world.received.values()) reasons.add(finishReason);
      }
      expect(reasons).toContain("stop");
    },
  );

  it("is preempted as a gang and resumes with the same hypotheses", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(10), { ...beams(4), maxTokens: 20 });
    for (let i = 0; world.engine.hasWork; i++) {
      await world.step();
      if (i % 4 === 3 && world.engine.hasWork) {
        world.engine.preemptAll();
        expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 1, kvBlocksUsed: 0 });
      }
    }
    world.checkDelivered();
    expect(world.engine.stats().preemptions).toBeGreaterThan(3);
  });

  it("resumes from the common part of its beams, which is computed once", async () => {
    const world = new EngineWorld({ ...NO_END, blockSize: 16 });
    world.add("a", tokens(10), { ...beams(3), maxTokens: 12 });
    for (let i = 0; i < 7; i++) await world.step();
    world.replaceExecutor(); // its pool holds nothing
    const live = plainBeamSearch(tokens(10), 3, 6);
    let common = 0;
    while (common < 5 && live.every((one) => one[common] === live[0]![common])) common += 1;
    await world.run();
    world.checkDelivered();
    const slots = world.executor.steps[0]!.rows.map(({ slot }) => slot);
    expect(new Set(slots).size).toBe(1);
    let numSamples = 0;
    let numRows = 0;
    for (const { rows, samples } of world.executor.steps) {
      numSamples += samples.length;
      numRows += rows.length;
      if (numSamples === 3) break; // all beams are where they were
    }
    expect(numRows).toBe(10 + common + 3 * (6 - common));
  });

  it("is preempted for want of blocks beside others, and by the loss of the back end", async () => {
    const preempted: (string | number)[] = [];
    for (const numBlocks of [11, 13, 15]) {
      const world = new EngineWorld({ ...NO_END, numBlocks });
      world.add("a", tokens(9), { ...beams(3), maxTokens: 8 });
      world.add("b", tokens(12, 40), { maxTokens: 25 });
      world.add("c", tokens(9, 20), { ...beams(2), maxTokens: 12 });
      for (let i = 0; world.engine.hasWork; i++) {
        await world.step();
        if (i === 12) world.replaceExecutor();
      }
      world.checkDelivered();
      for (const event of world.engine.events()) {
        if (event.kind === "preempt" && event.reason === "blocks") preempted.push(event.requestId);
      }
    }
    expect(new Set(preempted)).toEqual(new Set(["b", "c"])); // never the first in line
    expect(preempted.length).toBeGreaterThan(3);
  });

  it("waits until there are slots for all its beams", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("one", tokens(5), { maxTokens: 6 });
    world.add("beams", tokens(5, 20), { ...beams(4), maxTokens: 4 });
    world.add("two", tokens(5, 40), { maxTokens: 6 });
    await world.step();
    expect(world.engine.stats()).toMatchObject({ running: 2, waiting: 1 });
    await world.run();
    world.checkDelivered();
  });

  it("is steady beside samples in the same steps", async () => {
    const world = new EngineWorld({ ...NO_END, numBlocks: 100 });
    world.add("beams", tokens(8), { ...beams(3), maxTokens: 10 });
    world.add("samples", tokens(8), { n: 3, maxTokens: 10 });
    await world.run();
    world.checkDelivered();
    expect(world.engine.stats().steps).toBe(1 + 10); // the prompts are more than FEWEST_ROWS
  });

  it("gives the hypotheses of the moment when it is aborted, and leaves nothing behind", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(10), { ...beams(3), maxTokens: 20 });
    for (let i = 0; i < 6; i++) await world.step();
    const outputs = world.engine.abort("a");
    const live = plainBeamSearch(tokens(10), 3, 5);
    expect(outputs.map(({ tokens: found }) => found)).toEqual(live);
    expect(outputs.map(({ finishReason }) => finishReason)).toEqual(["abort", "abort", "abort"]);
    expect(world.engine.abort("a")).toEqual([]);
    expect(world.engine.hasWork).toBe(false);
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
  });

  it("is aborted in flight, while it waits, and before it has begun", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("flying", tokens(10), { ...beams(4), maxTokens: 20 });
    world.add("waiting", tokens(10, 50), { ...beams(4), maxTokens: 20 });
    await world.step();
    world.executor.onFlight = () => world.abort("flying");
    await world.step();
    world.executor.onFlight = undefined;
    expect(world.of("flying", 3).finishReason).toBe("abort");
    world.abort("waiting");
    expect(world.of("waiting")).toMatchObject({ finishReason: "abort", tokens: [] });
    expect(world.engine.hasWork).toBe(false);
    world.add("paused", tokens(10), { ...beams(4), maxTokens: 20 });
    for (let i = 0; i < 4; i++) await world.step();
    world.engine.preemptAll();
    world.abort("paused");
    expect(world.of("paused").tokens).toHaveLength(4);
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
  });

  it("cannot be ended beam by beam from outside", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(10), { ...beams(2), maxTokens: 5 });
    await world.step();
    expect(world.engine.finishSequence("a", 0)).toBeUndefined();
    await world.run();
    world.checkDelivered();
  });

  it("scores its prompt once", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(10), { ...beams(2), maxTokens: 5, promptLogprobs: 1 });
    world.add("only", tokens(10, 40), { ...beams(2), maxTokens: 0, promptLogprobs: 1 });
    await world.run();
    world.checkDelivered();
    expect(world.of("a", 1).promptScores).toBeUndefined();
    expect(world.of("only", 1)).toMatchObject({ finishReason: "length", tokens: [] });
  });

  it("says nothing before its end, whatever others say meanwhile", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(2), { ...beams(2), maxTokens: 6 });
    world.add("b", tokens(2, 40), { maxTokens: 12, sampling: withSeed(2) });
    for (let i = 0; i < 5; i++) await world.step();
    expect([world.of("a").numOutputs, world.of("b").numOutputs]).toEqual([0, 5]);
    await world.run();
    expect(world.of("a").numOutputs).toBe(1);
  });
});
