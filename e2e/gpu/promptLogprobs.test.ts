import { afterAll, describe, expect, test } from "vitest";
import { score } from "../../src/backends/reference/sampler.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { EngineRequest } from "../../src/engine/engineRequest.ts";
import { GREEDY, MAX_LOGPROBS } from "../../src/engine/sampling.ts";
import type { SlotReset, StepExecutor, TokenScore } from "../../src/engine/step.ts";
import { makePlan } from "../fixtures/drivePlan.ts";
import { Random } from "../fixtures/random.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { openBackend, openDevice, testedIcd } from "./device.ts";
import { createRandom, randomLogits, seeded, shapes } from "./samplerCases.ts";
import { SamplerHarness } from "./samplerHarness.ts";

const MAX_CONTEXT = 128;
const BLOCK_SIZE = 16;
/** f32 sums of exponentials and one logarithm. */
const LOGPROB_TOLERANCE = 2e-5;
/** The same, and logits that f32 arithmetic made: as in the oracle's tests. */
const MODEL_TOLERANCE = 1e-3;

describe(`scores on ${testedIcd}`, () => {
  test("agree with float64 for every count, whatever is sampled beside them", async () => {
    const device = await openDevice();
    for (const size of [1, 7, 257, 10_007]) {
      const random = createRandom(size + 2);
      const numSamples = 4;
      const harness = await SamplerHarness.create(device, size, numSamples + MAX_LOGPROBS + 2);
      for (const shape of shapes) {
        const resets = Array.from(
          { length: numSamples },
          (_, slot): SlotReset => ({
            slot,
            sampling: {
              ...GREEDY,
              temperature: slot % 2,
              topK: slot === 3 ? 5 : 0,
              repetitionPenalty: slot === 2 ? 1.1 : 1,
              seed: seeded(random),
              logprobs: slot < 2 ? 3 * slot : undefined,
            },
            promptTokens: [],
            outputTokens: [],
          }),
        );
        const samples = resets.map(({ slot }) => ({
          slot,
          position: 5,
          logits: randomLogits(shape, size, random),
        }));
        const scores = Array.from({ length: MAX_LOGPROBS + 1 }, (_, top) => ({
          token: Math.floor(random() * size),
          top,
          logits: randomLogits(shape, size, random),
        }));
        const alone = await harness.run(resets, samples);
        const together = await harness.run(resets, samples, scores);
        expect(together.tokens).toEqual(alone.tokens);
        expect(together.lastTokens).toEqual(alone.lastTokens);
        expect(together.logprobs).toEqual(alone.logprobs);
        for (const [i, { token, top, logits }] of scores.entries()) {
          expectScore(together.scores[i]!, score(logits, token, top), LOGPROB_TOLERANCE);
        }
        // The same bits without company; scores are no samples and leave no token behind.
        const bare = await harness.run([], [], scores.toReversed());
        expect(bare.scores).toEqual(together.scores.toReversed());
        expect(bare).toMatchObject({ tokens: [], logprobs: [], lastTokens: together.lastTokens });
      }
      harness.dispose();
    }
    device.destroy();
  });
});

describe(`prompt scores of a model on ${testedIcd}`, async () => {
  const backend = await openBackend();
  afterAll(() => backend.dispose());
  const random = new Random(41);
  const prompt = Array.from({ length: 75 }, () => random.integer(3, 299));
  const model = makeTinyModel({ type: "Q4_1", layers: 2, seed: 33, contextLength: MAX_CONTEXT });
  const sizes = { kvBlocks: 32, maxSequences: 8, maxRows: 48, maxContext: MAX_CONTEXT };
  const plan = makePlan(model, { ...sizes, kvCacheDtype: "f32" }, backend);
  afterAll(async () => (await plan).dispose());

  const scored: EngineRequest = {
    id: "scored",
    promptTokens: prompt,
    n: 1,
    maxTokens: 4,
    stopTokenIds: [],
    ignoreEos: true,
    promptLogprobs: 3,
    sampling: GREEDY,
  };
  const others = Array.from({ length: 3 }, (_, i): EngineRequest => {
    const promptTokens = prompt.slice(i, 10 + 20 * i);
    const sampling = { ...GREEDY, temperature: i % 2, logprobs: i === 1 ? 2 : undefined };
    return { ...scored, id: i, promptTokens, maxTokens: 40, promptLogprobs: undefined, sampling };
  });

  async function run(
    executor: StepExecutor,
    requests: readonly EngineRequest[],
    options: { readonly maxSequences?: number; readonly numBlocks?: number } = {},
  ) {
    const engine = new Engine({
      executor,
      numBlocks: sizes.kvBlocks,
      blockSize: BLOCK_SIZE,
      maxSequences: sizes.maxSequences,
      maxRows: sizes.maxRows,
      maxContext: MAX_CONTEXT,
      endTokens: new Set([2]),
      now: () => performance.now(),
      ...options,
    });
    const tokens = new Map(requests.map(({ id }) => [id, [] as number[]]));
    let scores: readonly TokenScore[] | undefined;
    for (const request of requests) engine.add(request);
    while (engine.hasWork) {
      for (const output of await engine.step()) {
        tokens.get(output.requestId)!.push(...output.tokens);
        scores = output.promptScores ?? scores;
      }
    }
    return { tokens, scores: scores!, preemptions: engine.stats().preemptions };
  }

  test("agree with the reference back end", async () => {
    const reference = await makePlan(model, { ...sizes, kvCacheDtype: "f32" });
    const expected = await run(reference, [scored]);
    const found = await run(await plan, [scored]);
    expect(found.tokens).toEqual(expected.tokens);
    expect(found.scores).toHaveLength(prompt.length - 1);
    for (const [i, one] of found.scores.entries()) {
      expectScore(one, expected.scores[i]!, MODEL_TOLERANCE);
    }
    reference.dispose();
  });

  test("are the same bits alone, in any chunks, in company and after preemption", async () => {
    const alone = await run(await plan, [scored]);
    const company = await run(await plan, others);
    for (const maxSequences of [1, 3, 5]) {
      const chunked = await run(await plan, [scored], { maxSequences });
      expect(chunked.scores).toEqual(alone.scores);
    }
    const together = await run(await plan, [...others, scored]);
    expect(together.scores).toEqual(alone.scores);
    expect(together.tokens).toEqual(new Map([...company.tokens, ...alone.tokens]));
    // The scored prompt needs 5 blocks; the others grow to 4, 5 and 5 before it is through.
    const tight = { numBlocks: 12, maxSequences: 4 };
    const preempted = await run(await plan, [...others, scored], tight);
    expect(preempted.preemptions).toBeGreaterThan(0);
    expect(preempted.scores).toEqual(alone.scores);
    expect(preempted.tokens).toEqual(together.tokens);
  });
});

/** The order of the best, and with it the rank, must be the same: no two logits are as close as rounding. */
function expectScore(found: TokenScore, expected: TokenScore, tolerance: number): void {
  expect(Math.abs(found.logprob - expected.logprob)).toBeLessThan(tolerance);
  expect(found.rank).toBe(expected.rank);
  expect(found.top.map(({ token }) => token)).toEqual(expected.top.map(({ token }) => token));
  for (const [i, { logprob }] of found.top.entries()) {
    expect(Math.abs(logprob - expected.top[i]!.logprob)).toBeLessThan(tolerance);
  }
}
