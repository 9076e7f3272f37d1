import { expect, it } from "vitest";
import { halfToNumber } from "../../../weights/half.ts";
import { roundToHalf } from "../../reference/half.ts";
import { paramOffsets } from "../abi.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import { i32, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { KV_FORMATS, toHalf } from "./kvFormat.ts";

const OFFSETS = paramOffsets(["x", "y"]);
const [F16] = KV_FORMATS;

/** y[i] = the f16 of x[i], as its value. */
async function round(values: ArrayLike<number>): Promise<Float64Array> {
  const kernel = defineKernel("toHalf", OFFSETS, (k, { param, begin, end }) => {
    k.for(begin, end, 1, (i) => {
      const at = k.let(i32.shl(i, 4));
      v128.store(i32.add(param("y"), at), 0, toHalf(k, v128.load(i32.add(param("x"), at))));
    });
  });
  const harness = new KernelHarness([kernel]);
  const x = harness.arena.reserve("x", values.length * 4);
  const y = harness.arena.reserve("y", values.length * 4);
  const items = values.length / 4;
  const params = harness.program.params(OFFSETS, { x, y });
  harness.program.add({ kernel: "toHalf", params, items: () => items });
  await harness.bind();
  harness.float32(x).set(values);
  harness.run();
  return Float64Array.from(harness.int32(y, values.length), halfToNumber);
}

/** Compares all and names the first that differs, in bits. */
function expectSame(
  x: ArrayLike<number>,
  found: ArrayLike<number>,
  expected: (x: number) => number,
): void {
  for (let i = 0; i < x.length; i++) {
    const wanted = expected(x[i]!);
    if (!Object.is(found[i], wanted))
      expect({ x: x[i], y: found[i] }).toEqual({ x: x[i], y: wanted });
  }
}

/** What the pool keeps: the nearest f16, held at the largest; zeros keep the sign of x. */
function held(x: number): number {
  const size = Math.min(65504, Math.abs(roundToHalf(x)));
  return x < 0 || Object.is(x, -0) ? -size : size;
}

const FINITE_HALVES = Array.from({ length: 2 ** 16 }, (_, bits) => bits).filter(
  (bits) => (bits & 0x7c00) !== 0x7c00,
);

it("keeps every f16", async () => {
  const values = FINITE_HALVES.map(halfToNumber);
  expectSame(values, await round(values), (x) => x);
});

it("rounds to the nearest f16, halfway to the even one", async () => {
  const values = FINITE_HALVES.filter((bits) => (bits & 0x7fff) < 0x7bff).flatMap((bits) => {
    const [low, high] = [halfToNumber(bits), halfToNumber(bits + 1)];
    const middle = (low + high) / 2;
    const nudge = Math.abs(high - low) / 4096;
    return [middle, middle - nudge, middle + nudge, low + (high - low) / 4];
  });
  expectSame(values, await round(values), held);
});

it("rounds random numbers of every size", async () => {
  const random = Float32Array.from({ length: 1 << 18 }, (_, i) => {
    const mantissa = 1 + ((Math.imul(i, 0x9e3779b1) >>> 8) & 0xffffff) / 2 ** 24;
    return (i & 1 ? -1 : 1) * mantissa * 2 ** (((i >> 1) % 60) - 35);
  });
  expectSame(random, await round(random), held);
});

it("holds what is too large, and NaN", async () => {
  const found = await round([65519, 65520, 1e30, Infinity, -65520, -1e30, -Infinity, Number.NaN]);
  expect([...found].map(Math.abs)).toEqual(new Array(8).fill(65504));
  expect([...found].slice(4, 7).every((value) => value < 0)).toBe(true);
});

it("reads every f16, in the order of the pool, times 2^-112", async () => {
  const kernel = defineKernel("read", OFFSETS, (k, { param, begin, end }) => {
    const read = F16.reader(k);
    k.for(begin, end, 1, (i) => {
      const target = k.let(i32.add(param("y"), i32.shl(i, 5)));
      for (const [half, values] of read(i32.add(param("x"), i32.shl(i, 4)), 0).entries()) {
        v128.store(target, half * 16, values);
      }
    });
  });
  const harness = new KernelHarness([kernel]);
  const x = harness.arena.reserve("x", 2 ** 17);
  const y = harness.arena.reserve("y", 2 ** 18);
  const params = harness.program.params(OFFSETS, { x, y });
  harness.program.add({ kernel: "read", params, items: () => 2 ** 13 });
  await harness.bind();
  const halves = new Uint16Array(harness.bytes().buffer, x, 2 ** 16);
  for (let bits = 0; bits < 2 ** 16; bits++) {
    const inGroup = bits % 8;
    halves[bits - inGroup + (inGroup % 4) * 2 + Math.floor(inGroup / 4)] = bits;
  }
  harness.run();
  const found = harness.float32(y, 2 ** 16);
  for (const bits of FINITE_HALVES) {
    const expected = halfToNumber(bits) * 2 ** -112;
    if (!Object.is(found[bits], expected)) expect([bits, found[bits]]).toEqual([bits, expected]);
  }
});
