import { describe, expect, it } from "vitest";
import type { EngineRequest } from "./engineRequest.ts";
import { GREEDY } from "./sampling.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";

const SHARED = [...tokens(10, 60), ...tokens(10, 60)];

/** One request of each kind. */
const KINDS: readonly (readonly [
  name: string,
  prompt: number[],
  fields: Partial<EngineRequest>,
])[] = [
  ["greedy", tokens(9), { sampling: GREEDY }],
  ["sampled", tokens(17, 30), { sampling: withSeed(3, { topP: 0.9, topK: 20 }) }],
  ["penalties", tokens(11, 5), { sampling: withSeed(4, { repetitionPenalty: 1.2 }) }],
  ["n = 4", tokens(13, 40), { n: 4, sampling: withSeed(5) }],
  ["best of 3", tokens(6, 50), { n: 2, bestOf: 3, sampling: withSeed(6) }],
  ["beams", tokens(10, 20), { n: 3, sampling: GREEDY, beam: beamsOf(3) }],
  ["drafts", SHARED, { sampling: withSeed(7), numSpeculativeTokens: 4 }],
  ["scores", tokens(8, 70), { promptLogprobs: 2, sampling: withSeed(8) }],
  ["shared greedy", [...SHARED, 1], { sampling: GREEDY }],
  ["shared sampled", [...SHARED, 2, 3], { sampling: withSeed(9) }],
  ["shared n = 3", [...SHARED, 4], { n: 3, sampling: withSeed(10) }],
  ["shared beams", [...SHARED, 5], { n: 2, sampling: GREEDY, beam: beamsOf(4) }],
  ["shared drafts", [...SHARED, ...SHARED.slice(0, 5)], { numSpeculativeTokens: 8 }],
];

function beamsOf(width: number) {
  return { width, lengthPenalty: 1, earlyStopping: false };
}

const SIZES = {
  endTokens: new Set([7, 77]),
  copyPeriod: 10,
  maxSequences: 32,
  maxRows: 256,
  numBlocks: 400,
  maxContext: 200,
};

function answersOf(world: EngineWorld): Record<string, unknown> {
  const answers: Record<string, unknown> = {};
  for (const [key, { tokens: delivered, finishReason, promptScores }] of world.received) {
    answers[key] = { delivered, finishReason, promptScores };
  }
  return answers;
}

/** Each request alone in an engine of its own. */
async function soloAnswers(): Promise<Record<string, unknown>> {
  let answers = {};
  for (const [name, prompt, fields] of KINDS) {
    const world = new EngineWorld(SIZES);
    world.add(name, prompt, { maxTokens: 40, ...fields });
    await world.run();
    answers = { ...answers, ...answersOf(world) };
  }
  return answers;
}

describe("Engine: everything at once", () => {
  it.each([
    ["in steps of any size", {}],
    ["in small steps", { maxRows: 32 }],
    ["with few slots", { maxSequences: 6, maxRows: 40 }],
    ["in a pool that is too small", { numBlocks: 64 }],
    ["with steps in flight", { maxStepsInFlight: 3, timing: { stepMs: () => 5, latencyMs: 5 } }],
    [
      "with swaps in a small pool and steps in flight",
      {
        numBlocks: 50,
        numHostBlocks: 200,
        maxStepsInFlight: 2,
        timing: {
          stepMs: ({ rows }: { rows: readonly unknown[] }) => 5 + rows.length,
          latencyMs: 9,
        },
      },
    ],
    ["by the longest prefix, with blocks of 1", { waitingOrder: "longest-prefix", blockSize: 1 }],
    ["with blocks of 16", { blockSize: 16, numBlocks: 40 }],
  ] as const)("says what each says alone, %s", async (_, sizes) => {
    const expected = await soloAnswers();
    const world = new EngineWorld({ ...SIZES, ...sizes });
    for (const [name, prompt, fields] of KINDS)
      world.add(name, prompt, { maxTokens: 40, ...fields });
    await world.run();
    world.checkDelivered();
    expect(answersOf(world)).toEqual(expected);
    expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
  });

  it("has all kinds in the same steps, and each step does many things", async () => {
    const world = new EngineWorld(SIZES);
    // Teaches the budget that steps may be long.
    for (const length of [16, 32, 64, 128]) {
      const prompt = Array.from({ length }, (_, i) => (i * length) % 97);
      world.add(length, prompt, { maxTokens: 1 });
      await world.run();
    }
    for (const [name, prompt, fields] of KINDS)
      world.add(name, prompt, { maxTokens: 40, ...fields });
    await world.step();
    await world.step();
    const { rows, samples, copies } = world.executor.steps.at(-1)!;
    const slots = new Set(rows.map(({ slot }) => slot));
    // One each for greedy, sampled, penalties, drafts, scores and the shared ones of these; then
    // samples and beams: 4 + 3 + 3 and 3 + 4. Some may be drafts' places, none is anybody else's.
    expect(slots.size).toBeGreaterThanOrEqual(5 + 3 + 4 + 3 + 3 + 3 + 4);
    expect(samples.length).toBeGreaterThanOrEqual(slots.size);
    expect(copies.length).toBeGreaterThan(5);
    expect(copies.length).toBeLessThanOrEqual(SIZES.maxSequences);
    await world.run();
    world.checkDelivered();
  });

  it("survives interruptions of all kinds in the middle", async () => {
    const expected = await soloAnswers();
    const world = new EngineWorld({ ...SIZES, numBlocks: 100, numHostBlocks: 30 });
    for (const [name, prompt, fields] of KINDS)
      world.add(name, prompt, { maxTokens: 40, ...fields });
    for (let i = 0; world.engine.hasWork; i++) {
      if (i % 12 === 5) world.engine.preemptAll();
      if (i % 12 === 11) world.replaceExecutor();
      if (i === 20) {
        const error = new Error("lost");
        world.executor.failure = { error, early: false };
        await world.stepUntilFailure(error);
      } else await world.step();
    }
    expect(answersOf(world)).toEqual(expected);
  });
});
