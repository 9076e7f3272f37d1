import { afterAll, beforeAll, expect, test } from "vitest";
import { keepMinP, keepTopK } from "../../src/backends/reference/sampler.ts";
import { createSlotState, slotWords } from "../../src/backends/slotRecord.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import {
  createSamplerBuffers,
  createSamplerKernels,
  type SamplerKernelName,
  sampleGroups,
} from "../../src/backends/webgpu/samplerKernels.ts";
import type { SamplingParams } from "../../src/engine/sampling.ts";
import { GREEDY } from "../../src/engine/sampling.ts";
import { openDevice } from "./device.ts";
import { createRandom, randomLogits, shuffle } from "./samplerCases.ts";

// Which tokens min-p, top-k and top-p keep, read from where the kernels leave it: a drawn token
// hardly ever is the last one kept.

/** Of the mass of a distribution: exp of f32 is good to some 3e-6 at the arguments used here. */
const MASS_TOLERANCE = 5e-6;

let device: GPUDevice;
beforeAll(async () => {
  device = await openDevice();
});
afterAll(() => device.destroy());

interface Case {
  readonly logits: Float32Array<ArrayBuffer>;
  readonly filter: Partial<SamplingParams>;
}

/** For each case the kept tokens, after eight rounds of selection over all cases in one step. */
async function select(cases: readonly Case[]): Promise<boolean[][]> {
  const vocabularySize = cases[0]!.logits.length;
  const maxSequences = cases.length;
  const sizes = { vocabularySize, maxSequences };
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
  const inputs = {
    logits: device.createBuffer({ size: 4 * maxSequences * vocabularySize, usage }),
    stepBuffer: device.createBuffer({
      size: 4 * (64 + 4 * maxSequences),
      usage: usage | GPUBufferUsage.UNIFORM,
    }),
    lastTokens: device.createBuffer({ size: 4 * maxSequences, usage }),
  };
  const buffers = await createSamplerBuffers(device, sizes);
  const cache = new KernelCache(device);
  const kernels = await createSamplerKernels(cache, sizes, inputs, buffers);
  const words = new Uint32Array(64 + 4 * maxSequences);
  words.set([maxSequences, maxSequences, 0, 64]);
  for (const [slot, { logits, filter }] of cases.entries()) {
    words.set([slot, slot, 1, 0], 64 + 4 * slot);
    device.queue.writeBuffer(inputs.logits, 4 * slot * vocabularySize, logits);
    const sampling = { ...GREEDY, temperature: 1, ...filter };
    const reset = { slot, sampling, promptTokens: [], outputTokens: [] };
    const { record } = createSlotState(reset, vocabularySize);
    device.queue.writeBuffer(buffers.slotRecords, 4 * slot * slotWords.SLOT_WORDS, record);
  }
  device.queue.writeBuffer(inputs.stepBuffer, 0, words);

  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  const rounds = Array.from({ length: 8 }, () => ["histogram", "pick"] as const).flat();
  for (const name of ["adjust", "bound", ...rounds] satisfies SamplerKernelName[]) {
    const { pipeline, bindGroup, groups } = kernels[name];
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    if (groups === undefined) pass.dispatchWorkgroups(sampleGroups(maxSequences));
    else pass.dispatchWorkgroups(groups, maxSequences);
  }
  pass.end();
  const readback = device.createBuffer({
    size: buffers.selections.size,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  encoder.copyBufferToBuffer(buffers.selections, 0, readback, 0, readback.size);
  device.queue.submit([encoder.finish()]);
  await readback.mapAsync(GPUMapMode.READ);
  const states = new Uint32Array(readback.getMappedRange().slice(0));
  for (const buffer of [...Object.values(buffers), ...Object.values(inputs), readback]) {
    buffer.destroy();
  }
  return cases.map(({ logits }, i) => {
    expect(states[8 * i + 1], "the selection ended").toBe(8);
    const least = fromKey(states[8 * i]!);
    return Array.from(logits, (x) => x >= least);
  });
}

/** The float whose order key this is; 0 stands below all. */
function fromKey(key: number): number {
  if (key === 0) return -Infinity;
  const bits = key >= 0x80000000 ? key - 0x80000000 : ~key >>> 0;
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!;
}

/** Logits around a peak of 0 in a shuffled tail that falls slowly from `top`. */
function tailLogits(size: number, top: number): Float32Array<ArrayBuffer> {
  const ids = shuffle([...Array(size).keys()], createRandom(size));
  return Float32Array.from(ids, (rank) => (rank === 0 ? 0 : top - rank * 2e-5));
}

test.each([1, 2, 257, 1000, 49_152])(
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

test.each([2, 257, 49_152])(
  "top-p keeps the smallest set that reaches it, of %i tokens",
  async (size) => {
    const random = createRandom(size);
    const cases: Case[] = [];
    const all = [
      tailLogits(size, -1),
      tailLogits(size, -12), // every token of the tail is nothing, all of them are a third
      tailLogits(size, -25),
      ...(["normal", "flat", "peaked"] as const).map((shape) => randomLogits(shape, size, random)),
    ];
    for (const logits of all) {
      for (const topP of [0, 1e-4, 0.3, 0.77, 0.9, 0.99, 0.9999, 1 - 2 ** -20]) {
        cases.push({ logits, filter: { topP } }, { logits, filter: { topP, topK: 1 + size / 3 } });
      }
    }
    const trimmed = cases.map(({ logits, filter }) => ({
      logits,
      filter: { ...filter, topK: Math.floor(filter.topK ?? 0) },
    }));
    const kept = await select(trimmed);
    for (const [i, { logits, filter }] of trimmed.entries()) {
      const label = JSON.stringify({ i, ...filter });
      const survivors = keepTopK(Float64Array.from(logits), filter.topK);
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
      const topP = filter.topP ?? 1;
      expect(mass, label).toBeGreaterThan(topP - MASS_TOLERANCE);
      expect(massAboveLast, label).toBeLessThan(Math.max(topP, Number.MIN_VALUE) + MASS_TOLERANCE);
      expect(mass, label).toBeGreaterThan(0);
    }
  },
);
