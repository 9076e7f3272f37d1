import { expect, test } from "vitest";
import { halfToNumber } from "../../weights/half.ts";
import { roundToHalf } from "./half.ts";

test("every f16 rounds to itself", () => {
  for (let bits = 0; bits < 2 ** 16; bits++) {
    const value = halfToNumber(bits);
    if (Math.abs(value) === Infinity) continue;
    if (!Object.is(roundToHalf(value), value)) expect(roundToHalf(value)).toBe(value);
  }
});

test("between two f16 the nearer one, halfway the even one", () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const [low, high] = [halfToNumber(bits), halfToNumber(bits + 1)];
    const middle = (low + high) / 2;
    const even = bits % 2 === 0 ? low : high;
    const found = [roundToHalf(middle), roundToHalf(-middle), roundToHalf(low + (high - low) / 4)];
    if (found[0] !== even || found[1] !== -even || found[2] !== low) {
      expect([bits, ...found]).toEqual([bits, even, -even, low]);
    }
  }
});

test("edges", () => {
  expect(roundToHalf(65_519)).toBe(65_504);
  expect(roundToHalf(65_520)).toBe(65_504);
  expect(roundToHalf(-1e30)).toBe(-65_504);
  expect(roundToHalf(-Infinity)).toBe(-65_504);
  expect(roundToHalf(2 ** -25)).toBe(0);
  expect(roundToHalf(2 ** -25 * 1.5)).toBe(2 ** -24);
  expect(roundToHalf(Number.NaN)).toBeNaN();
  expect(roundToHalf(-0)).toBe(-0);
});
