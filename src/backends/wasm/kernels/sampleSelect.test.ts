import { expect, it } from "vitest";
import { createRandom, randomLogits, shuffle } from "../../../../e2e/gpu/samplerCases.ts";
import { GREEDY, type SamplingParams } from "../../../engine/sampling.ts";
import { keepMinP, keepTopK } from "../../reference/sampler.ts";
import { createSlotState, slotFlags, slotWords } from "../../slotRecord.ts";
import { floatBits } from "../program.ts";
import { bestWords, CHUNK_TOKENS, sampleParams } from "../samplerAbi.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import { defineSampleKernels } from "./sample.ts";

// Which tokens min-p, top-k and top-p keep, read from where the kernels leave it: a drawn token
// hardly ever is the last one kept.

/** Of the mass of a distribution: exp of f32 is good to some 3e-6 at the arguments used here. */
const MASS_TOLERANCE = 5e-6;

interface Case {
  readonly logits: Float32Array;
  readonly filter: Partial<SamplingParams>;
}

/** For each case the kept tokens. */
async function select(cases: readonly Case[]): Promise<boolean[][]> {
  const harness = new KernelHarness(defineSampleKernels());
  const { arena, program } = harness;
  const vocabularySize = cases[0]!.logits.length;
  const numChunks = Math.ceil(vocabularySize / CHUNK_TOKENS);
  const stride = 16 * Math.ceil(vocabularySize / 4);
  const reserve = (bytesEach: number): number => arena.reserve("", cases.length * bytesEach);
  const values = {
    VOCABULARY: vocabularySize,
    CHUNKS: numChunks,
    SAMPLES: reserve(16),
    LOGITS: reserve(stride),
    LOGITS_STRIDE: stride,
    SLOT_RECORDS: reserve(slotWords.SLOT_WORDS * 4),
    TOKEN_STATE: 0,
    BIASES: 0,
    SCALED: reserve(stride),
    TOKEN_STRIDE: stride,
    BESTS: reserve(numChunks * bestWords.BYTES),
    THRESHOLDS: reserve(4),
    REPORTS: 0,
    SUMS: 0,
    TOPS: 0,
    MASS_SCALE: floatBits(2 ** 44),
  };
  const params = program.params(sampleParams, values);
  const items = { sampleAdjust: cases.length * numChunks, sampleSelect: cases.length };
  for (const [kernel, count] of Object.entries(items)) {
    program.add({ kernel, params, items: () => count });
  }
  await harness.bind();
  for (const [slot, { logits, filter }] of cases.entries()) {
    harness.int32(values.SAMPLES + slot * 16, 4).set([slot, slot, 1, 0]);
    harness.float32(values.LOGITS + slot * stride, logits.length).set(logits);
    const sampling = { ...GREEDY, temperature: 1, ...filter };
    const reset = { slot, sampling, promptTokens: [], outputTokens: [] };
    const { record } = createSlotState(reset, vocabularySize);
    harness.int32(values.SLOT_RECORDS + slot * slotWords.SLOT_WORDS * 4, record.length).set(record);
  }
  harness.run({ rows: cases.length }, 4);
  const thresholds = harness.int32(values.THRESHOLDS, cases.length);
  return cases.map(({ logits }, i) => {
    const flags = harness.int32(values.SLOT_RECORDS + i * slotWords.SLOT_WORDS * 4, 1)[0]!;
    const isSelecting = (flags & slotFlags.SELECT_FLAG) !== 0; // top-k of all tokens is none
    const least = isSelecting ? floatOfOrder(thresholds[i]!) : -Infinity;
    return Array.from(logits, (x) => x >= least);
  });
}

/** The float of an order; what lies below minus infinity lies below all. */
function floatOfOrder(order: number): number {
  const bits = order < 0 ? order ^ 0x7fffffff : order;
  const value = new Float32Array(Int32Array.of(bits).buffer)[0]!;
  return Number.isNaN(value) ? -Infinity : value;
}

/** Logits around a peak of 0 in a shuffled tail that falls slowly from `top`. */
function tailLogits(size: number, top: number): Float32Array {
  const ids = shuffle([...Array(size).keys()], createRandom(size));
  return Float32Array.from(ids, (rank) => (rank === 0 ? 0 : top - rank * 2e-5));
}

it.each([1, 2, 3, 257, 1000, 49_152])(
  "top-k and min-p keep what float64 keeps, of %i tokens",
  async (size) => {
    const random = createRandom(size);
    const cases: Case[] = [];
    for (const shape of ["normal", "tied", "peaked", "negative", "equal"] as const) {
      const logits = randomLogits(shape, size, random);
      const zeros = logits.map((x, i) => (Math.abs(x) < 1 ? [0, -0][i % 2]! : x));
      for (const topK of [1, 2, 40, Math.ceil(size / 2), Math.max(1, size - 1), size]) {
        cases.push({ logits, filter: { topK } }, { logits: zeros, filter: { topK, minP: 0.03 } });
      }
    }
    const kept = await select(cases);
    for (const [i, { logits, filter }] of cases.entries()) {
      const { topK = 0, minP = 0 } = filter;
      const expected = keepTopK(keepMinP(Float64Array.from(logits), minP), topK);
      expect(
        kept[i]!.every((isKept, id) => isKept === expected[id]! > -Infinity),
        JSON.stringify({ i, ...filter }),
      ).toBe(true);
    }
  },
);

it.each([2, 257, 49_152])(
  "top-p keeps the smallest set that reaches it, of %i tokens",
  async (size) => {
    const random = createRandom(size);
    const cases: Case[] = [];
    const all = [
      tailLogits(size, -1),
      tailLogits(size, -12), // every token of the tail is nothing, all of them are a third
      tailLogits(size, -25),
      ...(["normal", "flat", "peaked", "tied"] as const).map((shape) =>
        randomLogits(shape, size, random),
      ),
    ];
    for (const logits of all) {
      const few = [1e-4, 0.77, 0.9999];
      for (const topP of size > 1000 ? few : [0, ...few, 0.3, 0.9, 0.99, 1 - 2 ** -20]) {
        const topK = Math.floor(1 + size / 3);
        cases.push({ logits, filter: { topP } }, { logits, filter: { topP, topK } });
      }
    }
    const kept = await select(cases);
    for (const [i, { logits, filter }] of cases.entries()) {
      const label = JSON.stringify({ i, ...filter });
      const { topP = 1, topK = 0 } = filter;
      const survivors = keepTopK(Float64Array.from(logits), topK);
      const best = survivors.reduce((most, x) => Math.max(most, x));
      const weights = survivors.map((x) => Math.exp(x - best));
      const total = weights.reduce((sum, weight) => sum + weight);
      let mass = 0;
      let massAboveLast = 0;
      let isSubset = true;
      const last = survivors.reduce(
        (low, x, id) => (kept[i]![id] ? Math.min(low, x) : low),
        Infinity,
      );
      for (const [id, weight] of weights.entries()) {
        if (!kept[i]![id]) continue;
        isSubset &&= survivors[id]! > -Infinity;
        mass += weight / total;
        if (survivors[id]! > last) massAboveLast += weight / total;
      }
      expect(isSubset, label).toBe(true);
      expect(mass, label).toBeGreaterThan(topP - MASS_TOLERANCE);
      expect(massAboveLast, label).toBeLessThan(Math.max(topP, Number.MIN_VALUE) + MASS_TOLERANCE);
      expect(mass, label).toBeGreaterThan(0);
    }
  },
);
