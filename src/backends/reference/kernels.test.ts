import { expect, test } from "vitest";
import { attention, linear, rmsNorm, rope, silu, softmax } from "./kernels.ts";

const close = (found: ArrayLike<number>, expected: readonly number[]): void => {
  expect(found.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 12);
};

test("rmsNorm divides by the root of the mean square, epsilon inside", () => {
  close(rmsNorm(Float64Array.of(3, 4), [1, 2], 0), [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)]);
  close(rmsNorm(Float64Array.of(0, 0), [1, 1], 1e-5), [0, 0]);
  close(rmsNorm(Float64Array.of(1, 1), [1, 1], 3), [0.5, 0.5]);
});

test("linear multiplies rows and adds the bias", () => {
  const weight = [1, 2, 3, 4, 5, 6]; // [2, 3]
  close(linear(weight, Float64Array.of(1, 0, -1)), [-2, -2]);
  close(linear(weight, Float64Array.of(1, 0, -1), [10, 20]), [8, 18]);
});

test("rope turns adjacent or neox pairs and leaves the rest alone", () => {
  const head = Float64Array.of(1, 2, 3, 4, 5, 6);
  const frequencies = Float64Array.of(Math.PI / 2, Math.PI);
  const adjacent = rope(head, 1, { pairing: "adjacent", frequencies, magnitude: 1 });
  close(adjacent, [-2, 1, -3, -4, 5, 6]);
  const neox = rope(head, 1, { pairing: "neox", frequencies, magnitude: 2 });
  close(neox, [-6, -4, 2, -8, 5, 6]);
  close(rope(head, 0, { pairing: "neox", frequencies, magnitude: 1 }), [...head]);
});

test("attention weighs values by the softmax of scaled scores", () => {
  const q = Float64Array.of(2, 0, 0, 0); // 1 / sqrt(4) makes the scores the keys' first values
  const keys = [
    [0, 9, 9, 9],
    [Math.log(3), 0, 0, 0],
  ];
  const values = [
    [4, 0, 0, 8],
    [0, 4, 0, 8],
  ];
  close(attention(q, keys, values), [1, 3, 0, 8]);
  close(attention(q, keys.slice(0, 1), values.slice(0, 1)), [4, 0, 0, 8]);
});

test("softmax is stable and gives masked values nothing", () => {
  close(softmax([1000, 1000 + Math.log(3), -Infinity]), [0.25, 0.75, 0]);
});

test("silu", () => {
  expect(silu(0)).toBe(0);
  expect(silu(1)).toBeCloseTo(1 / (1 + Math.exp(-1)), 12);
  expect(silu(-1000)).toBeCloseTo(0, 12);
});
