import { describe, expect, it } from "vitest";
import { FIRST_RETRY_STEPS } from "./draftControl.ts";
import { GREEDY, type SamplingParams } from "./sampling.ts";
import type { Step } from "./step.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";

/** A model that copies, without an end. */
const COPYING = { endTokens: new Set<number>(), copyPeriod: 6 };

/** Long enough for its step to tell what rows cost. */
const PROMPT = [...tokens(6, 20), ...tokens(6, 20), ...tokens(4, 20)];

/** Steps that compute it: 4, 8 and 4 rows. */
const PROMPT_STEPS = 3;

/** Runs one request of 60 tokens over and over the same prompt. */
async function run(
  numSpeculativeTokens: number,
  sampling: SamplingParams,
  sizes: ConstructorParameters<typeof EngineWorld>[0] = {},
): Promise<EngineWorld> {
  const world = new EngineWorld({ ...COPYING, ...sizes });
  world.add("a", PROMPT, { maxTokens: 60, sampling, numSpeculativeTokens });
  await world.run();
  world.checkDelivered();
  expect(world.engine.stats().generationTokens).toBe(60);
  return world;
}

describe("Engine: speculation by prompt lookup", () => {
  it.each([
    ["greedy", GREEDY],
    ["sampled", withSeed(5)],
    ["with log-probabilities", withSeed(6, { logprobs: 2 })],
    ["with a bias", withSeed(7, { logitBias: [[3, 1]] })],
  ])("gives the same tokens in fewer steps, %s", async (_, sampling) => {
    const plain = await run(0, sampling);
    const world = await run(4, sampling);
    expect(world.of("a").tokens).toEqual(plain.of("a").tokens);
    const { steps, rows } = world.engine.stats();
    expect(plain.engine.stats().steps).toBe(PROMPT_STEPS + 59);
    expect(steps).toBeLessThan(42);
    const { spec_decode_num_draft_tokens: drafts, spec_decode_num_accepted_tokens: accepted } =
      world.engine.stats().metrics;
    expect(accepted).toBe(PROMPT_STEPS + 59 - steps);
    expect(drafts).toBeGreaterThan(accepted);
    // Each row is a prompt token's, a step's first, or a draft's.
    expect(rows).toBe(PROMPT.length + steps - PROMPT_STEPS + drafts);
  });

  it("uses no more rows than there are slots, and drafts nothing where all are taken", async () => {
    const world = new EngineWorld({ ...COPYING, maxSequences: 3, maxRows: 16 });
    for (let i = 0; i < 3; i++) {
      world.add(i, PROMPT, { maxTokens: 30, sampling: withSeed(i), numSpeculativeTokens: 4 });
    }
    await world.run();
    world.checkDelivered();
    const decoding = world.executor.steps.filter(({ samples }) => samples.length === 3);
    for (const { rows } of decoding.slice(1, 20)) expect(rows.length).toBeLessThanOrEqual(3);
    const few = await run(4, withSeed(1), { maxSequences: 8, maxRows: 2 });
    for (const { rows } of few.executor.steps) expect(rows.length).toBeLessThanOrEqual(2);
  });

  it("does not speculate with penalties, which count each token before the next is drawn", async () => {
    const world = await run(4, withSeed(5, { presencePenalty: 0.5 }));
    expect(world.engine.stats()).toMatchObject({
      steps: PROMPT_STEPS + 59,
      rows: PROMPT.length + 59,
    });
    expect(world.engine.stats().metrics.spec_decode_num_draft_tokens).toBe(0);
  });

  it("ends at a stop token among the drafts and discards what follows", async () => {
    const { tokens: all } = (await run(0, withSeed(5))).of("a");
    for (const at of [9, 10, 11, 12, 13, 20, 33]) {
      const stop = all[at]!;
      const world = new EngineWorld(COPYING);
      const fields = { maxTokens: 60, sampling: withSeed(5), numSpeculativeTokens: 4 };
      world.add("a", PROMPT, { ...fields, stopTokenIds: [stop] });
      await world.run();
      world.checkDelivered();
      expect(world.of("a")).toMatchObject({ finishReason: "stop", stopToken: stop });
      expect(world.of("a").tokens).toEqual(all.slice(0, all.indexOf(stop)));
    }
  });

  it("ends at maxTokens exactly, wherever that is among the drafts", async () => {
    const { tokens: all } = (await run(0, withSeed(5))).of("a");
    for (let maxTokens = 1; maxTokens < 25; maxTokens++) {
      const world = new EngineWorld(COPYING);
      world.add("a", PROMPT, { maxTokens, sampling: withSeed(5), numSpeculativeTokens: 8 });
      await world.run();
      expect(world.of("a").tokens).toEqual(all.slice(0, maxTokens));
      expect(world.of("a").finishReason).toBe("length");
    }
  });

  it("keeps rejected drafts out of the prefix cache: a later turn finds what was said", async () => {
    const world = await run(4, withSeed(5), { maxContext: 200 });
    const history = [...PROMPT, ...world.of("a").tokens];
    const sampling = withSeed(9);
    world.add("next", [...history, 1, 2], { maxTokens: 6, sampling });
    await world.run();
    world.checkDelivered();
    expect(world.of("next").cachedTokens).toBeGreaterThanOrEqual(history.length - 1);
  });

  it("goes together with samples, preemption and a small pool", async () => {
    const world = new EngineWorld({ ...COPYING, numBlocks: 24 });
    const sampling = withSeed(5);
    world.add("a", PROMPT, { n: 3, maxTokens: 50, sampling, numSpeculativeTokens: 4 });
    world.add("b", PROMPT, { maxTokens: 50, sampling: withSeed(2), numSpeculativeTokens: 2 });
    for (let i = 0; world.engine.hasWork; i++) {
      await world.step();
      if (i % 9 === 8) world.engine.preemptAll();
    }
    world.checkDelivered();
    expect(world.engine.stats().metrics.spec_decode_num_accepted_tokens).toBeGreaterThan(10);
  });

  it("waits until the samples have parted, also where the prompt's last row is a step of its own", async () => {
    for (let length = 12; length <= PROMPT.length; length++) {
      const world = new EngineWorld({ ...COPYING, maxRows: 4, maxSequences: 8 });
      const prompt = PROMPT.slice(0, length);
      world.add("a", prompt, {
        n: 3,
        maxTokens: 12,
        sampling: withSeed(5),
        numSpeculativeTokens: 4,
      });
      await world.run();
      world.checkDelivered();
      const parting = world.executor.steps.find(({ samples }) => samples.length > 0)!;
      expect(new Set(parting.samples.map(({ row }) => row)).size, `${length}`).toBe(1);
      expect(parting.samples).toHaveLength(3);
    }
  });

  it("is off where rows cost as much as steps, on where they are free", async () => {
    const drafts = async (stepMs: (numRows: number) => number) => {
      const timing = {
        stepMs: ({ rows }: { rows: readonly unknown[] }) => stepMs(rows.length),
        latencyMs: 0,
      };
      const world = await run(4, withSeed(5), { timing });
      return world.engine.stats().metrics.spec_decode_num_draft_tokens;
    };
    expect(await drafts((numRows) => 0.01 + 10 * numRows)).toBeLessThanOrEqual(4);
    expect(await drafts(() => 10)).toBeGreaterThan(30);
  });

  it("switches itself off on text that does not repeat itself, but for a try now and then", async () => {
    // Few tokens, so that pairs of them recur, but what follows is another one each time.
    const timing = { stepMs: ({ rows }: Step) => 5 + 0.5 * rows.length, latencyMs: 0 };
    const sizes = { endTokens: new Set<number>(), maxContext: 1000, numBlocks: 400 };
    const world = new EngineWorld({ ...sizes, timing });
    const prompt = Array.from({ length: 300 }, (_, i) => (i * i) % 97);
    const maxTokens = 600;
    world.add("a", prompt, { maxTokens, sampling: withSeed(3), numSpeculativeTokens: 8 });
    await world.run();
    world.checkDelivered();
    const { spec_decode_num_draft_tokens: drafts } = world.engine.stats().metrics;
    expect(drafts).toBeLessThan(maxTokens / FIRST_RETRY_STEPS);
  });
});
