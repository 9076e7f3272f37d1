import { describe, expect, it } from "vitest";
import {
  configurations,
  countsOf,
  createRandom,
  randomLogits,
  randomTokens,
  seeded,
  shapes,
  shuffle,
} from "../../../e2e/gpu/samplerCases.ts";
import { judge, type Verdict } from "../../../e2e/gpu/samplerHarness.ts";
import {
  GREEDY,
  MAX_LOGIT_BIAS,
  MAX_LOGPROBS,
  type SamplingParams,
} from "../../engine/sampling.ts";
import { NO_TOKEN, type SlotReset } from "../../engine/step.ts";
import { keepMinP, keepTopK, keepTopP, logprobs, score } from "../reference/sampler.ts";
import { Arena } from "./arena.ts";
import { Program } from "./program.ts";
import { Sampler } from "./sampler.ts";
import { SamplerHarness, type TestSample } from "./testing/samplerHarness.ts";

/** f32 sums of up to 2^16 exponentials. */
const LOGPROB_TOLERANCE = 1e-5;
const ON: SamplingParams = { ...GREEDY, temperature: 1 };

const resetOf = (slot: number, sampling: SamplingParams): SlotReset => ({
  slot,
  sampling,
  promptTokens: [],
  outputTokens: [],
});

describe("sampling in WebAssembly", () => {
  // [vocabulary, steps]; each step samples every configuration once
  it.each([
    [1, 2],
    [2, 6],
    [3, 12],
    [127, 18],
    [128, 18],
    [1000, 12],
    [2049, 6],
    [49_152, 1],
  ])("agrees with float64 in every configuration over %i tokens", async (size, numSteps) => {
    const random = createRandom(size);
    const maxSequences = configurations(size, random).length + 3;
    const harness = await SamplerHarness.create(size, maxSequences);
    const verdicts: Record<Verdict, number> = { equal: 0, near: 0, wrong: 0 };
    for (let step = 0; step < numSteps; step++) {
      const shape = shapes[(step + size) % shapes.length]!;
      const slots = shuffle([...Array(maxSequences).keys()], random);
      const resets = configurations(size, random).map(
        (sampling, i): SlotReset => ({
          slot: slots[i]!,
          sampling,
          promptTokens: randomTokens(30, size, random),
          outputTokens: randomTokens(20, size, random),
        }),
      );
      const order = shuffle([...resets], random);
      const samples = order.map(({ slot }) => ({
        slot,
        position: Math.floor(random() * 4096),
        logits: randomLogits(shape, size, random),
      }));
      const { tokens } = harness.run(resets, samples, { numThreads: 1 + (step % 4) });
      for (const [i, reset] of order.entries()) {
        const { logits, position } = samples[i]!;
        const verdict = judge(tokens[i]!, logits, reset.sampling, countsOf(reset), position);
        verdicts[verdict]++;
        const label = `${shape} ${JSON.stringify(reset.sampling)} gave ${tokens[i]}`;
        expect(verdict, label).not.toBe("wrong");
      }
    }
    expect(verdicts.near).toBeLessThanOrEqual(0.02 * verdicts.equal);
  });

  it("gives greedy ties to the lowest id, wherever they lie", async () => {
    const size = 20_011;
    const ties = [
      [0, 1, size - 1],
      [3, 4, 2048],
      [2047, 2048, 20_000],
      [2046, 2049, 4096],
      [size - 2, size - 1],
    ];
    const harness = await SamplerHarness.create(size, ties.length);
    const resets = ties.map((_, slot) => resetOf(slot, { ...GREEDY, logprobs: 2 }));
    const samples = ties.map((ids, slot) => {
      const logits = new Float32Array(size).fill(-3);
      for (const id of ids) logits[id] = 2.5;
      return { slot, position: 1, logits };
    });
    const { tokens, logprobs } = harness.run(resets, samples);
    expect(tokens).toEqual(ties.map((ids) => ids[0]));
    expect(logprobs.map((entry) => entry?.top.map(({ token }) => token))).toEqual(
      ties.map((ids) => ids.slice(0, 2)),
    );
  });

  it("lets zeros of both signs tie for top-k", async () => {
    const numSlots = 64;
    const harness = await SamplerHarness.create(2, numSlots);
    const resets = Array.from({ length: numSlots }, (_, slot) =>
      resetOf(slot, { ...ON, topK: 1, seed: [slot, 1] }),
    );
    const logits = Float32Array.of(0, -0);
    const { tokens } = harness.run(
      resets,
      resets.map(({ slot }) => ({ slot, position: 1, logits })),
    );
    expect(new Set(tokens)).toEqual(new Set([0, 1]));
  });

  it("gives a token, and the right one, for logits beyond reason, and none where no logit is finite", async () => {
    const size = 301;
    const all: SamplingParams[] = [
      { ...GREEDY, logprobs: 20 },
      ON,
      { ...ON, topK: 3, topP: 0.5, minP: 0.1, logprobs: 3 },
      { ...GREEDY, presencePenalty: 1 },
    ];
    const harness = await SamplerHarness.create(size, all.length);
    const resets = all.map((sampling, slot) => resetOf(slot, sampling));
    const run = (logits: Float32Array, given: readonly SlotReset[] = resets) =>
      harness.run(
        given,
        all.map((_, slot) => ({ slot, position: 9, logits })),
        { numThreads: 3 },
      );
    const peak = new Float32Array(size).fill(-3e38);
    peak[123] = 3e38;
    expect(run(peak).tokens).toEqual(all.map(() => 123));
    const masked = new Float32Array(size).fill(-Infinity);
    masked[300] = 1;
    expect(run(masked).tokens).toEqual(all.map(() => 300));
    const partly = new Float32Array(size).fill(Number.NaN);
    partly[7] = -5;
    expect(run(partly).tokens).toEqual(all.map(() => 7));
    for (const value of [Number.NaN, Infinity, -Infinity]) {
      const { tokens } = run(new Float32Array(size).fill(value));
      expect(tokens).toEqual(all.map(() => NO_TOKEN));
    }
    // And nothing of it is left for the next step.
    const logits = randomLogits("normal", size, createRandom(5));
    const { tokens } = run(logits, resets);
    for (const [i, token] of tokens.entries()) {
      expect(judge(token, logits, all[i]!, countsOf(resets[i]!), 9)).not.toBe("wrong");
    }
  });

  it.each([1, 7, 257, 10_007, 49_152])(
    "reports log-probabilities as float64 does, of %i tokens",
    async (size) => {
      const random = createRandom(size + 1);
      // Slot n asks for n; the last asks for none.
      const wanted = size > 20_000 ? [0, 5, 20] : [...Array(MAX_LOGPROBS + 1).keys()];
      const harness = await SamplerHarness.create(size, wanted.length + 1);
      for (const shape of shapes) {
        const resets = [...wanted, undefined].map((count, slot) =>
          resetOf(slot, {
            ...GREEDY,
            temperature: slot % 3,
            topK: slot % 2,
            seed: seeded(random),
            logprobs: count,
            logitBias: slot % 5 === 0 ? [[0, 50]] : [], // must not show in the log-probabilities
          }),
        );
        const samples = resets.map(({ slot }) => ({
          slot,
          position: slot,
          logits: randomLogits(shape, size, random),
        }));
        const result = harness.run(resets, samples, { numThreads: 2 });
        for (const [i, count] of wanted.entries()) {
          const actual = result.logprobs[i]!;
          const expected = logprobs(samples[i]!.logits, result.tokens[i]!, count);
          expect(actual.top.map(({ token }) => token)).toEqual(
            expected.top.map(({ token }) => token),
          );
          const pairs = [[actual.logprob, expected.logprob]];
          for (const [j, one] of actual.top.entries()) {
            pairs.push([one.logprob, expected.top[j]!.logprob]);
          }
          for (const [got, want] of pairs) {
            expect(Math.abs(got! - want!)).toBeLessThan(LOGPROB_TOLERANCE);
          }
        }
        expect(result.logprobs[wanted.length]).toBeUndefined();
      }
    },
  );

  it.each([1, 3, 2050])("scores known tokens as float64 does, of %i", async (size) => {
    const random = createRandom(size + 2);
    const harness = await SamplerHarness.create(size, 8);
    for (const shape of shapes) {
      const scores = [0, 1, 5, 20].map((top) => ({
        token: Math.floor(random() * size),
        top,
        logits: randomLogits(shape, size, random),
      }));
      // Beside samples that want nothing, something, or are not there.
      const resets = [resetOf(2, ON), resetOf(5, { ...ON, logprobs: 1 })];
      for (const numSamples of [0, 1, 2]) {
        const samples = resets.slice(0, numSamples).map(({ slot }) => ({
          slot,
          position: 3,
          logits: randomLogits(shape, size, random),
        }));
        const result = harness.run(resets, samples, { scores, numThreads: 4 });
        expect(result.tokens).toHaveLength(numSamples);
        expect(result.scores).toHaveLength(scores.length);
        for (const [i, { logits, token, top }] of scores.entries()) {
          const actual = result.scores[i]!;
          const expected = score(logits, token, top);
          expect(actual.rank).toBe(expected.rank);
          expect(Math.abs(actual.logprob - expected.logprob)).toBeLessThan(LOGPROB_TOLERANCE);
          expect(actual.top.map((one) => one.token)).toEqual(expected.top.map((one) => one.token));
        }
      }
    }
  });

  it("lets penalties follow the tokens sampled, through resets and other samples", async () => {
    const size = 61;
    const numSlots = 6;
    const random = createRandom(11);
    const harness = await SamplerHarness.create(size, numSlots);
    const slots: (SlotReset | undefined)[] = Array(numSlots).fill(undefined);
    const outputs: number[][] = Array.from({ length: numSlots }, () => []);
    let numEqual = 0;
    let numJudged = 0;
    for (let step = 0; step < 100; step++) {
      const resets: SlotReset[] = [];
      for (let slot = 0; slot < numSlots; slot++) {
        if (slots[slot] !== undefined && random() > 0.07) continue;
        outputs[slot] = randomTokens(Math.floor(random() * 4), size, random);
        const reset: SlotReset = {
          slot,
          sampling: {
            ...GREEDY,
            temperature: slot % 2,
            repetitionPenalty: slot < 4 ? 1.2 : 1,
            frequencyPenalty: slot === 4 ? 0.9 : 0.1,
            presencePenalty: slot === 3 ? 1 : 0,
            topK: slot === 1 ? 12 : 0,
            logitBias: slot === 2 ? [[5, 1]] : [],
            seed: seeded(random),
          },
          promptTokens: randomTokens(10, size, random),
          outputTokens: [...outputs[slot]!],
        };
        slots[slot] = reset;
        resets.push(reset);
      }
      const logits = randomLogits("tied", size, random);
      const active = shuffle([...Array(numSlots).keys()], random).filter(() => random() < 0.7);
      const samples = active.map((slot) => ({ slot, position: 100 + step, logits }));
      const { tokens } = harness.run(resets, samples);
      for (const [i, slot] of active.entries()) {
        const reset = { ...slots[slot]!, outputTokens: outputs[slot]! };
        const verdict = judge(tokens[i]!, logits, reset.sampling, countsOf(reset), 100 + step);
        expect(verdict, `step ${step}, slot ${slot}`).not.toBe("wrong");
        numJudged++;
        if (verdict === "equal") numEqual++;
        outputs[slot]!.push(tokens[i]!);
      }
    }
    expect(numEqual).toBeGreaterThan(0.95 * numJudged);
  });

  it("gives a sample the same bits in any company, place, slot and cut", async () => {
    const size = 5003;
    const random = createRandom(21);
    const all = configurations(size, random).map((params, i) =>
      i % 4 === 0 ? { ...params, logprobs: i % (MAX_LOGPROBS + 1) } : params,
    );
    const harness = await SamplerHarness.create(size, all.length);
    const sequences = all.map((sampling, i) => ({
      sampling,
      promptTokens: randomTokens(20, size, random),
      outputTokens: randomTokens(9, size, random),
      position: 31 * i,
      logits: randomLogits(shapes[i % shapes.length]!, size, random),
    }));
    const run = (group: readonly (typeof sequences)[number][], numThreads: number) => {
      const slots = shuffle([...Array(all.length).keys()], random);
      const resets = group.map((sequence, i) => ({ ...sequence, slot: slots[i]! }));
      const samples: readonly TestSample[] = resets;
      const { tokens, logprobs: records } = harness.run(resets, samples, { numThreads });
      return group.map((_, i) => ({ token: tokens[i], logprobs: records[i] }));
    };
    const alone = sequences.map((sequence) => run([sequence], 1)[0]);
    for (let round = 0; round < 12; round++) {
      const order = shuffle([...sequences.keys()], random).slice(0, round < 4 ? undefined : 5);
      const together = run(
        order.map((i) => sequences[i]!),
        1 + (round % 4),
      );
      for (const [at, i] of order.entries()) {
        expect(together[at], JSON.stringify(all[i])).toEqual(alone[i]);
      }
    }
  });

  it("draws several samples of one row, and of one slot, as if each were alone", async () => {
    const random = createRandom(23);
    const rows = [0, 1, 2].map(() => randomLogits("normal", 5003, random));
    const harness = await SamplerHarness.create(5003, 12);
    const resets = [0, 1, 2, 3].map((slot) =>
      resetOf(slot, { ...ON, topP: 0.9, logprobs: 3, seed: [slot, 5] }),
    );
    const samples = rows.flatMap((logits, row) =>
      resets.map(({ slot }) => ({ slot, position: 7 + row, logits })),
    );
    const { tokens, logprobs } = harness.run(resets, samples, { numThreads: 3 });
    const alone = samples.map((sample) => harness.run([], [sample]));
    expect(tokens).toEqual(alone.map((one) => one.tokens[0]));
    expect(logprobs).toEqual(alone.map((one) => one.logprobs[0]));
    expect(new Set(tokens).size).toBeGreaterThan(4);
  });

  it.each([
    ["the whole vocabulary", {}],
    ["top-p", { topP: 0.75 }],
    ["top-k and temperature", { topK: 9, temperature: 1.6 }],
    ["min-p", { minP: 0.2 }],
  ])("draws from the distribution over %s", async (_, filter) => {
    const size = 40;
    const numSlots = 64;
    const numSteps = 100;
    const params: SamplingParams = { ...ON, ...filter };
    const logits = randomLogits("normal", size, createRandom(31)).map((x) => x / 3);
    const scaled = Float64Array.from(logits, (x) => x / params.temperature);
    const kept = keepTopP(keepTopK(keepMinP(scaled, params.minP), params.topK), params.topP);
    const weights = kept.map((x) => Math.exp(x));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const harness = await SamplerHarness.create(size, numSlots);
    const resets = Array.from({ length: numSlots }, (_, slot) =>
      resetOf(slot, { ...params, seed: [slot, 0] }),
    );
    const counts = new Array<number>(size).fill(0);
    for (let step = 0; step < numSteps; step++) {
      const samples = resets.map(({ slot }) => ({ slot, position: step, logits }));
      const { tokens } = harness.run(step === 0 ? resets : [], samples);
      for (const token of tokens) counts[token]!++;
    }
    let statistic = 0;
    let freedom = -1;
    for (const [token, weight] of weights.entries()) {
      if (weight === 0) {
        expect(counts[token]).toBe(0);
        continue;
      }
      const expected = (numSlots * numSteps * weight) / total;
      statistic += (counts[token]! - expected) ** 2 / expected;
      freedom++;
    }
    // Wilson and Hilferty's bound for 3.7 standard deviations, a chance of 1e-4.
    const spread = 2 / (9 * freedom);
    expect(freedom).toBeGreaterThan(3);
    expect(statistic).toBeLessThan(freedom * (1 - spread + 3.7 * Math.sqrt(spread)) ** 3);
  });

  it("refuses biases that cannot be applied, and a vocabulary that is too large", async () => {
    const { sampler } = await SamplerHarness.create(10, 1);
    const reset = (logitBias: SamplingParams["logitBias"]): SlotReset[] => [
      resetOf(0, { ...GREEDY, logitBias }),
    ];
    expect(() => sampler.resetSlots(reset([[10, 1]]))).toThrow("ids 0 to 9");
    expect(() => sampler.resetSlots(reset([[1.5, 1]]))).toThrow("token 1.5");
    const many = Array.from({ length: MAX_LOGIT_BIAS + 1 }, () => [1, 1] as const);
    expect(() => sampler.resetSlots(reset(many))).toThrow(String(MAX_LOGIT_BIAS));
    const arena = new Arena();
    const options = { maxSequences: 1, logits: 0, samples: 0 };
    const vocabularySize = 2 ** 20 + 1;
    const logitsStride = 2 ** 23;
    expect(
      () => new Sampler(arena, new Program(arena), { ...options, vocabularySize, logitsStride }),
    ).toThrow("1048577 tokens");
  });

  it("keeps every token of 2^20 equal ones under top-p: their masses do not overflow", async () => {
    const size = 2 ** 20;
    const harness = await SamplerHarness.create(size, 1);
    const logits = new Float32Array(size).fill(3);
    const params: SamplingParams = { ...ON, seed: [8, 9] };
    const draw = (sampling: SamplingParams) =>
      harness.run([resetOf(0, sampling)], [{ slot: 0, position: 4, logits }]).tokens[0];
    expect(draw({ ...params, topP: 0.999 })).toBe(draw(params));
  });
});
