import { expect, it } from "vitest";
import { fillRotations, sincos } from "./sincos.ts";

/** Math.sin and Math.cos are right to 1e-15 or so in the engine of the tests. */
const TOLERANCE = 1e-12;

function check(x: number): void {
  const found = new Float64Array(2);
  sincos(x, found);
  const errors = [found[0]! - Math.sin(x), found[1]! - Math.cos(x)];
  if (!errors.every((error) => Math.abs(error) < TOLERANCE))
    expect([x, ...errors]).toEqual([x, 0, 0]);
}

it("is right to 1e-12 up to 2^20, both ways", () => {
  for (let i = 0; i <= 200_000; i++) {
    const x = (i / 200_000) ** 3 * 2 ** 20;
    check(x);
    check(-x);
  }
});

it("is right next to the multiples of pi / 4, where the reduction cancels", () => {
  for (let n = 0; n < 2 ** 20; n += 37) {
    const x = (n * Math.PI) / 4;
    check(x);
    check(x * (1 + 2 ** -52));
    check(x - 1e-9);
  }
});

it("is exact at 0", () => {
  const found = new Float64Array(2);
  sincos(0, found);
  expect([...found]).toEqual([0, 1]);
});

it("fills a step's rotations with cos and sin of each pair, times the magnitude", () => {
  const rows = [7, 0, 4095].map((position) => ({ slot: 0, token: 1, position, kvSlot: 0 }));
  const frequencies = Float64Array.of(1, 0.1, 1e-4);
  const target = new Float32Array(rows.length * frequencies.length * 2 + 1).fill(9);
  fillRotations(target, rows, frequencies, 1.5);
  const expected = rows.flatMap(({ position }) =>
    [...frequencies].flatMap((frequency) => [
      Math.fround(Math.cos(position * frequency) * 1.5),
      Math.fround(Math.sin(position * frequency) * 1.5),
    ]),
  );
  for (const [i, value] of expected.entries()) expect(target[i]).toBeCloseTo(value, 6);
  expect(target.at(-1)).toBe(9);
});
