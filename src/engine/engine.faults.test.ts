import { describe, expect, it } from "vitest";
import { QuireError } from "../errors.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import { GREEDY } from "./sampling.ts";
import { NO_TOKEN, type StepResult } from "./step.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";
import { PagedExecutor } from "./testing/pagedExecutor.ts";

async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (error instanceof QuireError) return error.code;
    throw error;
  }
  return "no error";
}

const NEVER_ANSWERS = { submit: () => ({ result: new Promise<never>(() => {}) }) };

describe("Engine: abort and finish", () => {
  it("aborts before, during and after a step, and only once", async () => {
    const world = new EngineWorld({ maxSequences: 1 });
    for (const id of ["a", "b", "c"]) world.add(id, tokens(6), { ignoreEos: true });
    expect(world.engine.abort("b")).toMatchObject([
      { requestId: "b", index: 0, tokens: [], finishReason: "abort", promptTokens: 6 },
    ]);
    expect(world.engine.abort("b")).toEqual([]);
    world.executor.onFlight = () => {
      expect(world.engine.abort("a")).toMatchObject([{ finishReason: "abort", tokens: [] }]);
      world.engine.checkIntegrity();
    };
    expect(await world.engine.step()).toEqual([]); // the sample in flight is dropped
    world.executor.onFlight = undefined;
    world.received.delete("a/0");
    world.received.delete("b/0");
    await world.run();
    expect(world.engine.abort("c")).toEqual([]);
    expect(world.engine.abort("never heard of")).toEqual([]);
    world.checkDelivered();
  });

  it("gives an aborted sequence's slot and blocks away at once, and the newcomer is not disturbed", async () => {
    const world = new EngineWorld({ numBlocks: 4, maxSequences: 1 });
    world.add("a", tokens(12), { maxTokens: 4, ignoreEos: true });
    world.add("b", tokens(12, 50), { maxTokens: 4, ignoreEos: true });
    world.executor.onFlight = () => world.abort("a");
    await world.step();
    world.executor.onFlight = undefined;
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 1, kvBlocksUsed: 0 });
    await world.run();
    expect(world.of("b").tokens).toHaveLength(4);
    world.checkDelivered();
  });

  it("aborts all samples of a request that have not ended", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(5), { n: 3 });
    await world.step();
    world.note([world.engine.finishSequence("a", 1)]);
    expect(world.engine.abort("a").map(({ index }) => index)).toEqual([0, 2]);
    expect(world.engine.hasWork).toBe(false);
  });

  it("ends one sample for a stop string and lets the others go on", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(5), { n: 2, ignoreEos: true });
    await world.step();
    await world.step();
    world.note([world.engine.finishSequence("a", 0, "stop")]);
    expect(world.engine.finishSequence("a", 0)).toBeUndefined();
    expect(world.engine.finishSequence("a", 7)).toBeUndefined();
    expect(world.engine.finishSequence("b", 0)).toBeUndefined();
    await world.run();
    expect(world.of("a", 0).finishReason).toBe("stop");
    expect(world.of("a", 0).tokens.length).toBeLessThan(8);
    expect(world.of("a", 1)).toMatchObject({ finishReason: "length" });
    expect(world.of("a", 1).tokens).toHaveLength(8);
    world.checkDelivered();
  });
});

describe("Engine: failures", () => {
  it.each([true, false])(
    "puts everything back when a step fails (early: %s) and goes on",
    async (early) => {
      const world = new EngineWorld({ endTokens: new Set() });
      for (let i = 0; i < 4; i++) world.add(i, tokens(9, i), { maxTokens: 12 });
      for (let i = 0; i < 4; i++) await world.step();
      const error = new QuireError("device-lost", "The GPU device is gone.");
      world.executor.failure = { error, early };
      await expect(world.engine.step()).rejects.toBe(error);
      world.engine.checkIntegrity();
      expect(world.engine.stats()).toMatchObject({
        running: 0,
        waiting: 4,
        kvBlocksUsed: 0,
        kvBlocksCached: 0,
      });
      world.replaceExecutor();
      await world.run();
      world.checkDelivered();
    },
  );

  it("trusts no prefix of a step that failed", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(16));
    world.executor.failure = { error: new Error("lost"), early: true };
    await expect(world.engine.step()).rejects.toThrow("lost");
    world.abort("a");
    world.add("b", [...tokens(16), 3]);
    await world.run();
    expect(world.of("b").cachedTokens).toBe(0);
    world.checkDelivered();
  });

  it("can be failed by its host", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(5), { n: 2 });
    world.executor.failure = { error: new Error("lost"), early: false };
    await expect(world.engine.step()).rejects.toThrow("lost");
    world.note([0, 1].map((index) => world.engine.finishSequence("a", index, "error")));
    expect(world.of("a", 1).finishReason).toBe("error");
    expect(world.engine.hasWork).toBe(false);
  });

  it("forgets a step in flight on a back end that is replaced, whatever becomes of it", async () => {
    const world = new EngineWorld({ endTokens: new Set() });
    world.add("a", tokens(9));
    const settle: { resolve: (result: StepResult) => void; reject: (error: Error) => void }[] = [];
    const hanging = {
      submit: () => ({
        result: new Promise<StepResult>((resolve, reject) => settle.push({ resolve, reject })),
      }),
    };
    world.engine.replaceExecutor(hanging);
    const first = world.engine.step();
    world.engine.replaceExecutor(hanging);
    const second = world.engine.step();
    world.replaceExecutor();
    await world.step();
    settle[0]?.resolve({ tokens: [1], logprobs: [undefined], scores: [] });
    settle[1]?.reject(new Error("lost"));
    expect(await first).toEqual([]);
    expect(await second).toEqual([]);
    await world.run();
    world.checkDelivered();
  });

  it("lets go of a step on a back end that never answers as soon as it is replaced", async () => {
    const world = new EngineWorld({ endTokens: new Set(), maxStepsInFlight: 3 });
    world.add("a", tokens(9));
    await world.step();
    world.engine.replaceExecutor(NEVER_ANSWERS);
    const waiting = world.engine.step();
    await Promise.resolve();
    world.replaceExecutor();
    expect(await waiting).toEqual([]);
    await world.run();
    world.checkDelivered();
    expect(world.numTimers).toBe(0);
  });

  it("refuses a result that does not answer the step, and recovers", async () => {
    const results: StepResult[] = [
      { tokens: [], logprobs: [], scores: [] },
      { tokens: [-5], logprobs: [undefined], scores: [] },
      { tokens: [Number.NaN], logprobs: [undefined], scores: [] },
      { tokens: [1], logprobs: [undefined], scores: [{ logprob: -1, rank: 1, top: [] }] },
    ];
    const world = new EngineWorld();
    world.add("a", tokens(4));
    for (const result of results) {
      world.engine.replaceExecutor({ submit: () => ({ result: Promise.resolve(result) }) });
      expect(await codeOf(() => world.engine.step())).toBe("internal");
      world.engine.checkIntegrity();
    }
    world.replaceExecutor();
    await world.run();
    world.checkDelivered();
  });

  it("refuses two steps at once", async () => {
    const world = new EngineWorld();
    world.add("a", tokens(5));
    const first = world.engine.step();
    expect(await codeOf(() => world.engine.step())).toBe("internal");
    world.note(await first);
    await world.run();
    world.checkDelivered();
  });

  it("refuses bad requests and leaves no trace of them", async () => {
    const world = new EngineWorld({ numBlocks: 4, maxContext: 100 });
    world.add("a", [1]);
    expect(await codeOf(() => world.add("a", [1]))).toBe("invalid-argument");
    expect(await codeOf(() => world.add("b", []))).toBe("invalid-argument");
    expect(await codeOf(() => world.add("b", tokens(100)))).toBe("context-overflow");
    expect(await codeOf(() => world.add("b", tokens(10), { maxTokens: 7 }))).toBe(
      "kv-pool-too-small",
    );
    expect(world.engine.stats()).toMatchObject({ waiting: 1, promptTokens: 1 });
    await world.run();
    world.add("b", tokens(10), { maxTokens: 6, ignoreEos: true }); // the whole pool, to the last slot
    await world.run();
    expect(world.of("b").tokens).toHaveLength(6);
    world.checkDelivered();
  });

  it("refuses bad options", async () => {
    const good: EngineOptions = {
      executor: new PagedExecutor({ numBlocks: 4, blockSize: 4, maxSequences: 1, maxRows: 4 }),
      numBlocks: 4,
      blockSize: 4,
      maxSequences: 1,
      maxRows: 4,
      maxContext: 16,
      endTokens: new Set(),
      now: () => 0,
    };
    for (const name of ["numBlocks", "blockSize", "maxSequences", "maxRows", "maxContext"]) {
      expect(await codeOf(() => new Engine({ ...good, [name]: 0 }))).toBe("invalid-argument");
      expect(await codeOf(() => new Engine({ ...good, [name]: 1.5 }))).toBe("invalid-argument");
    }
    expect(await codeOf(() => new Engine({ ...good, stepBudgetMs: 0 }))).toBe("invalid-argument");
    expect(await codeOf(() => new Engine({ ...good, stepBudgetMs: Number.NaN }))).toBe(
      "invalid-argument",
    );
  });
});

describe("Engine: a model without a number", () => {
  const NO_END = { endTokens: new Set<number>() };

  /** The model has no number for what comes at this position, of any sequence. */
  function poison({ executor }: EngineWorld, position: number): void {
    const submit = executor.submit.bind(executor);
    executor.submit = (step) => {
      const result = submit(step).result.then((found) => ({
        ...found,
        tokens: found.tokens.map((token, i) =>
          step.samples[i]!.position === position ? NO_TOKEN : token,
        ),
      }));
      return { result };
    };
  }

  it.each([1, 3])("ends that request, and no other (steps in flight: %i)", async (depth) => {
    const timing = { stepMs: () => 5, latencyMs: 20 };
    const world = new EngineWorld({ ...NO_END, maxStepsInFlight: depth, timing });
    poison(world, 30);
    world.add("short", tokens(9), { maxTokens: 12 });
    world.add("samples", tokens(25, 40), { n: 2, maxTokens: 20 });
    world.add("long", tokens(31, 60), { n: 2, maxTokens: 20 });
    await world.run();
    for (const index of [0, 1]) {
      const received = world.of("samples", index);
      expect(received).toMatchObject({ finishReason: "error" });
      expect(received.tokens).toEqual(world.expected(received).tokens.slice(0, 5));
      expect(world.of("long", index)).toMatchObject({ finishReason: "length" });
    }
    expect(world.of("short").finishReason).toBe("length");
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
    world.checkDelivered();
  });

  it("ends all samples and beams of a request that are to be ranked", async () => {
    const world = new EngineWorld(NO_END);
    poison(world, 12);
    const beam = { width: 2, lengthPenalty: 1, earlyStopping: false } as const;
    world.add("beams", tokens(8), { n: 2, beam, sampling: GREEDY, maxTokens: 20 });
    world.add("best", tokens(9, 30), { n: 1, bestOf: 3, sampling: withSeed(3, { logprobs: 0 }) });
    await world.run();
    for (const [id, index] of [
      ["beams", 0],
      ["beams", 1],
      ["best", 0],
    ] as const) {
      expect(world.of(id, index).finishReason, id).toBe("error");
    }
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
  });

  it("keeps drafts that were accepted before it", async () => {
    const world = new EngineWorld({ ...NO_END, copyPeriod: 4 });
    poison(world, 40);
    const prompt = Array.from({ length: 20 }, (_, i) => 5 + (i % 4));
    world.add("a", prompt, { maxTokens: 60, numSpeculativeTokens: 4 });
    await world.run();
    const received = world.of("a");
    expect(received.finishReason).toBe("error");
    expect(received.tokens).toEqual(world.expected(received).tokens.slice(0, 20));
    expect(world.engine.stats().metrics.spec_decode_num_accepted_tokens).toBeGreaterThan(0);
  });
});
