import { describe, expect, test } from "vitest";
import { makeRopeSpec, type RopeOptions, type YarnScaling } from "./rope.ts";

const PLAIN: RopeOptions = {
  pairing: "neox",
  rotaryDims: 8,
  freqBase: 10_000,
  scaling: { type: "none" },
  attentionFactor: 1,
  factors: undefined,
};

const YARN: YarnScaling = {
  type: "yarn",
  factor: 4,
  originalContextLength: 128,
  extFactor: 1,
  yarnAttentionFactor: 1,
  betaFast: 32,
  betaSlow: 1,
  logMultiplier: 0,
};

const close = (found: Float64Array, expected: readonly number[]): void => {
  expect(found.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i]! / value).toBeCloseTo(1, 12);
};

describe("makeRopeSpec", () => {
  test("frequencies fall from 1 by powers of the base", () => {
    const { frequencies, magnitude, pairing } = makeRopeSpec(PLAIN);
    close(frequencies, [1, 0.1, 0.01, 0.001]);
    expect(magnitude).toBe(1);
    expect(pairing).toBe("neox");
  });

  test("linear scaling divides all, rope_freqs each", () => {
    const linear = makeRopeSpec({ ...PLAIN, scaling: { type: "linear", factor: 4 } });
    close(linear.frequencies, [0.25, 0.025, 0.0025, 0.00025]);
    const factors = Float32Array.of(1, 2, 4, 8);
    close(makeRopeSpec({ ...PLAIN, factors }).frequencies, [1, 0.05, 0.0025, 0.000125]);
  });

  test("the attention factor multiplies the magnitude", () => {
    expect(makeRopeSpec({ ...PLAIN, attentionFactor: 1.25 }).magnitude).toBe(1.25);
  });

  test("yarn keeps fast pairs, slows slow ones and ramps between", () => {
    // Pairs that make 32 and 1 turns in 128 positions: 8 ln(128 / (2 pi turns)) / (2 ln 10000)
    // = -0.196 and 1.309, so the ramp runs from pair 0 to pair 2.
    const { frequencies } = makeRopeSpec({ ...PLAIN, scaling: YARN });
    close(frequencies, [1, 0.1 * (0.25 * 0.5 + 0.5), 0.01 * 0.25, 0.001 * 0.25]);
  });

  test("yarn's ramp moves with its betas and context, and extFactor takes a share of it", () => {
    const wide = { ...YARN, originalContextLength: 128 * 1000, betaFast: 128, betaSlow: 4 };
    // 8 ln(159.15) / 18.42 = 2.20 and 8 ln(5092.96) / 18.42 = 3.71: from pair 2 to pair 4
    close(makeRopeSpec({ ...PLAIN, scaling: wide }).frequencies, [1, 0.1, 0.01, 0.001 * 0.625]);
    const half = { ...YARN, extFactor: 0.5 };
    close(makeRopeSpec({ ...PLAIN, scaling: half }).frequencies, [
      0.625,
      0.1 * (0.25 * 0.75 + 0.25),
      0.01 * 0.25,
      0.001 * 0.25,
    ]);
  });

  test("yarn's magnitude", () => {
    const magnitude = (change: Partial<YarnScaling>, attentionFactor = 1): number =>
      makeRopeSpec({ ...PLAIN, scaling: { ...YARN, ...change }, attentionFactor }).magnitude;
    const ln4 = Math.log(4);
    expect(magnitude({})).toBeCloseTo(1 + 0.1 * ln4, 12);
    expect(magnitude({}, 2)).toBeCloseTo(2 * (1 + 0.1 * ln4), 12);
    expect(magnitude({ logMultiplier: 0.5 })).toBeCloseTo((1 + 0.1 * ln4) / (1 + 0.05 * ln4), 12);
    expect(magnitude({ logMultiplier: 1 })).toBeCloseTo(1, 12);
    expect(magnitude({ factor: 0.5 })).toBe(1);
    expect(magnitude({ extFactor: 0, yarnAttentionFactor: 1.5 })).toBe(1.5);
  });
});
