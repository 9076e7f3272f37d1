import { expect, test } from "vitest";
import { gumbel, pcg4d, uniform } from "./rng.ts";

test("pcg4d of known words, worked out with big integers", () => {
  for (const input of [
    [0, 0, 0, 0],
    [1, 2, 3, 4],
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [49_151, 8_191, 0xdeadbeef, 0x80000000],
  ] as const) {
    expect(pcg4d(input)).toEqual(pcg4dOfBigInts(input));
  }
  // Pinned, so that WGSL and every later version agree with what seeds gave before.
  expect(pcg4d([0, 0, 0, 0])).toEqual(KNOWN.zeros);
  expect(pcg4d([1, 2, 3, 4])).toEqual(KNOWN.counting);
});

const KNOWN = {
  zeros: [251852841, 760645481, 850445371, 3542436074],
  counting: [908250390, 4044648920, 3775961919, 45698095],
};

function pcg4dOfBigInts(input: readonly number[]): number[] {
  const word = (x: bigint): bigint => x & 0xffffffffn;
  const v = input.map((x) => word(BigInt(x) * 1664525n + 1013904223n)) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  const round = (): void => {
    v[0] = word(v[0] + v[1] * v[3]);
    v[1] = word(v[1] + v[2] * v[0]);
    v[2] = word(v[2] + v[0] * v[1]);
    v[3] = word(v[3] + v[1] * v[2]);
  };
  round();
  for (let i = 0; i < 4; i++) v[i]! ^= v[i]! >> 16n;
  round();
  return v.map(Number);
}

test("uniform numbers lie in (0, 1), are exact in float32 and differ by every part of the key", () => {
  const seen = new Set<number>();
  for (let token = 0; token < 1000; token++) {
    const u = uniform(token, 5, [1, 2]);
    expect(u).toBeGreaterThan(0);
    expect(u).toBeLessThan(1);
    expect(Math.fround(u)).toBe(u);
    seen.add(u);
  }
  expect(seen.size).toBeGreaterThan(990);
  const base = uniform(3, 5, [1, 2]);
  expect(uniform(4, 5, [1, 2])).not.toBe(base);
  expect(uniform(3, 6, [1, 2])).not.toBe(base);
  expect(uniform(3, 5, [2, 2])).not.toBe(base);
  expect(uniform(3, 5, [1, 3])).not.toBe(base);
});

test("gumbel noise has the Gumbel distribution's mean and variance", () => {
  const n = 20_000;
  let sum = 0;
  let sumOfSquares = 0;
  for (let i = 0; i < n; i++) {
    const g = gumbel(i % 100, Math.floor(i / 100), [42, 0]);
    sum += g;
    sumOfSquares += g * g;
  }
  const mean = sum / n;
  // Standard errors are 0.009 and 0.03: four of them.
  expect(Math.abs(mean - 0.5772)).toBeLessThan(0.036);
  expect(Math.abs(sumOfSquares / n - mean * mean - Math.PI ** 2 / 6)).toBeLessThan(0.12);
});
