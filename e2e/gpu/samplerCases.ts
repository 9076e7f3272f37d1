import type { TokenCounts } from "../../src/backends/reference/sampler.ts";
import type { SamplingParams } from "../../src/engine/sampling.ts";
import { GREEDY, MAX_LOGIT_BIAS } from "../../src/engine/sampling.ts";
import type { SlotReset } from "../../src/engine/step.ts";

/** Numbers in [0, 1) that are the same in every run. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
    return ((mixed ^ (mixed >>> 13)) >>> 0) / 2 ** 32;
  };
}

export type Shape = (typeof shapes)[number];
export const shapes = ["normal", "flat", "equal", "peaked", "tied", "negative"] as const;

export function randomLogits(
  shape: Shape,
  size: number,
  random: () => number,
): Float32Array<ArrayBuffer> {
  const normal = (): number =>
    Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const draw: Record<Shape, () => number> = {
    normal: () => 3 * normal(),
    flat: () => 0.05 * normal(), // a heavy tail: every token counts
    equal: () => 1.25,
    peaked: () => 12 * normal(),
    tied: () => Math.round(4 * normal()) / 2, // few values, many ties, zeros of both signs
    negative: () => -40 + normal(),
  };
  return Float32Array.from({ length: size }, draw[shape]);
}

export const seeded = (random: () => number): SamplingParams["seed"] => [
  Math.floor(random() * 2 ** 32),
  Math.floor(random() * 2 ** 32),
];

export function randomTokens(count: number, size: number, random: () => number): number[] {
  return Array.from({ length: count }, () => Math.floor(random() ** 2 * size));
}

/** Every filter at its edges, every penalty, and their mixtures, for a vocabulary of `size`. */
export function configurations(size: number, random: () => number): SamplingParams[] {
  const on = { ...GREEDY, temperature: 1 };
  const bias = randomTokens(Math.min(40, size), size, random).map(
    (id) => [id, 8 * random() - 4] as const,
  );
  const fullBias = Array.from(
    { length: MAX_LOGIT_BIAS },
    (_, i) => [(i * 7919) % size, 0.1 * random()] as const,
  );
  const penalties = { repetitionPenalty: 1.3, presencePenalty: 0.7, frequencyPenalty: 0.4 };
  const list: SamplingParams[] = [
    GREEDY,
    on,
    { ...on, temperature: 0.3 },
    { ...on, temperature: 5 },
    { ...on, temperature: 1e-30 },
    { ...on, topK: 1 },
    { ...on, topK: 2 },
    { ...on, topK: 50 },
    { ...on, topK: size },
    { ...on, topK: size + 5 },
    { ...on, topK: Math.max(1, size - 1), temperature: 2 },
    { ...on, topP: 0 },
    { ...on, topP: 1e-6 },
    { ...on, topP: 0.1 },
    { ...on, topP: 0.9 },
    { ...on, topP: 0.999999 },
    { ...on, minP: 0.05 },
    { ...on, minP: 1 },
    { ...on, minP: 1e-9, temperature: 3 },
    { ...on, minP: 0.01, topK: 40, topP: 0.8, temperature: 1.7 },
    { ...on, topK: 20, topP: 0.5 },
    { ...GREEDY, topK: 3, topP: 0.5, minP: 0.5 },
    { ...GREEDY, ...penalties },
    { ...on, ...penalties },
    { ...on, repetitionPenalty: 0.8, topP: 0.7 },
    { ...on, frequencyPenalty: -0.5 },
    { ...GREEDY, logitBias: bias },
    { ...on, logitBias: bias, topK: 10 },
    { ...GREEDY, logitBias: fullBias },
    { ...on, ...penalties, logitBias: fullBias, topP: 0.95, topK: 100, minP: 0.001 },
    { ...GREEDY, logitBias: [[size - 1, 100]] },
    { ...on, logprobs: 0 },
    { ...GREEDY, logprobs: 5, ...penalties },
  ];
  return list.map((params) => ({ ...params, seed: seeded(random) }));
}

export const countsOf = (reset: SlotReset): TokenCounts => {
  const output = new Map<number, number>();
  for (const token of reset.outputTokens) output.set(token, (output.get(token) ?? 0) + 1);
  return { prompt: new Set(reset.promptTokens), output };
};

export function shuffle<T>(items: T[], random: () => number): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}
