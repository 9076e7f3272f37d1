import { describe, expect, it } from "vitest";
import { EngineWorld, tokens } from "./testing/engineWorld.ts";
import { expectedScores } from "./testing/pagedExecutor.ts";

const NO_END = { endTokens: new Set<number>() };

/** Scored positions of each step. */
function scoredPositions({ executor }: EngineWorld): number[][] {
  return executor.steps.map(({ rows, scores }) => scores.map(({ row }) => rows[row]!.position));
}

describe("prompt scores", () => {
  it("come once, whole, with the first output; the first token has none", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(4), { promptLogprobs: 2, maxTokens: 3 });
    await world.step();
    expect(world.of("a").tokens).toHaveLength(1);
    expect(world.of("a").promptScores).toEqual(expectedScores(tokens(4), 2));
    await world.run();
    world.checkDelivered();
    expect(scoredPositions(world)).toEqual([[0, 1, 2], [], []]);
  });

  it("of a prompt of one token are an empty list", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", [5], { promptLogprobs: 0 });
    await world.run();
    expect(world.of("a").promptScores).toEqual([]);
  });

  it("do not change what is sampled, nor the tokens of others", async () => {
    const answers = async (promptLogprobs: number | undefined) => {
      const world = new EngineWorld(NO_END);
      world.add("a", tokens(20), { promptLogprobs });
      world.add("b", tokens(11, 40));
      await world.run();
      world.checkDelivered();
      return [world.of("a").tokens, world.of("b").tokens];
    };
    expect(await answers(3)).toEqual(await answers(undefined));
  });

  it("cut a prompt's chunks to the rows of logits that a step has", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 3 });
    world.add("a", tokens(8), { promptLogprobs: 0, maxTokens: 1 });
    await world.run();
    world.checkDelivered();
    expect(scoredPositions(world)).toEqual([[0, 1, 2], [3, 4, 5], [6]]);
    expect(world.executor.steps.map(({ samples }) => samples.length)).toEqual([0, 0, 1]);
  });

  it("leave decoding sequences their rows and go on with what is left", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("a", tokens(3), { maxTokens: 20 });
    world.add("b", tokens(3, 40), { maxTokens: 20 });
    await world.step();
    world.add("c", tokens(9, 60), { promptLogprobs: 1, maxTokens: 1 });
    await world.run();
    world.checkDelivered();
    const steps = world.executor.steps.slice(1, 6);
    expect(steps.map(({ scores }) => scores.length)).toEqual([2, 2, 2, 2, 0]);
    expect(steps.map(({ samples }) => samples.length)).toEqual([2, 2, 2, 2, 3]);
  });

  it("are computed for one sequence after another with a single slot", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 1 });
    world.add("a", tokens(5), { promptLogprobs: 1, n: 2, maxTokens: 2 });
    world.add("b", tokens(4, 30), { promptLogprobs: 0, maxTokens: 2 });
    await world.run();
    world.checkDelivered();
  });

  it("are computed once for n samples, which wait for the first one's prompt and share its blocks", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("a", tokens(16), { promptLogprobs: 1, n: 3, maxTokens: 2 });
    await world.run();
    world.checkDelivered();
    expect(scoredPositions(world).flat()).toEqual(tokens(15, 0));
    expect(world.of("a", 1).promptScores).toBeUndefined();
    expect(world.of("a", 2).cachedTokens).toBe(16);
    // Four rows of logits a step: 15 scores, three samples of the last row, and a row for each of them.
    const rows = world.executor.steps.map((step) => step.rows.length);
    expect(rows).toEqual([4, 4, 4, 3, 1, 3]);
    expect(world.executor.steps[4]!.samples.map(({ row }) => row)).toEqual([0, 0, 0]);
  });

  it("do not come from the prefix cache, but fill it", async () => {
    const world = new EngineWorld(NO_END);
    world.add("warm", tokens(16));
    await world.run();
    world.add("scored", tokens(16), { promptLogprobs: 2 });
    await world.run();
    expect(world.of("scored").cachedTokens).toBe(0);
    world.add("other", tokens(16, 50), { promptLogprobs: 0, maxTokens: 1 });
    await world.run();
    world.add("after", tokens(16, 50));
    await world.run();
    expect(world.of("after").cachedTokens).toBe(15);
    world.checkDelivered();
  });

  it("survive preemption without loss or repetition; what is scored may then come from the cache", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4, numBlocks: 64 });
    world.add("a", tokens(14), { promptLogprobs: 1, maxTokens: 3 });
    await world.step();
    await world.step();
    world.engine.preemptAll();
    await world.run();
    world.checkDelivered();
    expect(scoredPositions(world).flat()).toEqual(tokens(13, 0));
    const resumed = world.executor.steps[2]!;
    expect(resumed.slotResets).toHaveLength(1);
    expect(resumed.rows[0]!.position).toBe(8); // two full blocks of four
  });

  it("recompute unscored rows that the evicted cache no longer has, without scoring them twice", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("a", tokens(14), { promptLogprobs: 1, maxTokens: 3 });
    await world.step();
    await world.step();
    world.replaceExecutor(); // its pool holds nothing
    const done = world.executor;
    await world.run();
    world.checkDelivered();
    expect(done.steps[0]!.rows[0]!.position).toBe(0);
    expect(scoredPositions(world).flat()).toEqual(tokens(5, 8));
  });

  it("of a step that was preempted in flight, or failed, are computed again", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("a", tokens(10), { promptLogprobs: 1, maxTokens: 3 });
    world.executor.onFlight = () => world.engine.preemptAll();
    await world.step();
    world.executor.onFlight = undefined;
    world.executor.failure = { error: new Error("lost"), early: false };
    await expect(world.engine.step()).rejects.toThrow("lost");
    await world.run();
    world.checkDelivered();
    const [voided, failed, third] = scoredPositions(world);
    expect([voided, failed, third]).toEqual(Array(3).fill([0, 1, 2, 3]));
  });

  it("of an aborted request never come", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 4 });
    world.add("a", tokens(10), { promptLogprobs: 1 });
    await world.step();
    world.abort("a");
    expect(world.of("a")).toMatchObject({ finishReason: "abort", promptScores: undefined });
    world.add("b", tokens(10), { promptLogprobs: 1 });
    await world.run();
    world.checkDelivered();
  });

  it("come with a sequence whose first token ends it", async () => {
    const world = new EngineWorld({ endTokens: new Set(tokens(97, 0)) });
    world.add("a", tokens(10), { promptLogprobs: 1 });
    await world.run();
    expect(world.of("a")).toMatchObject({ finishReason: "stop", tokens: [] });
    expect(world.of("a").promptScores).toEqual(expectedScores(tokens(10), 1));
  });

  it("are all there is with maxTokens 0, which lets the prompt fill the context", async () => {
    const world = new EngineWorld({ ...NO_END, maxContext: 20 });
    world.add("a", tokens(20), { promptLogprobs: 0, maxTokens: 0, n: 2 });
    await world.run();
    for (const index of [0, 1]) {
      expect(world.of("a", index)).toMatchObject({ finishReason: "length", tokens: [] });
    }
    world.checkDelivered();
    expect(world.engine.stats().generationTokens).toBe(0);
    const one = { n: 1, stopTokenIds: [], sampling: world.of("a").request.sampling };
    const add = (count: number, fields: { maxTokens: number; promptLogprobs?: number }) =>
      world.engine.add({ id: "b", promptTokens: tokens(count), ...one, ...fields });
    expect(() => add(21, { maxTokens: 0, promptLogprobs: 0 })).toThrow("the context holds 20.");
    expect(() => add(20, { maxTokens: 1, promptLogprobs: 0 })).toThrow(
      "one of them for the answer",
    );
    expect(() => add(5, { maxTokens: 0 })).toThrow("maxTokens is 0");
  });
});
