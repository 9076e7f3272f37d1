import { describe, expect, it } from "vitest";
import { paramOffsets } from "../abi.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import type { FunctionBody } from "./emit.ts";
import { i32, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { exp, log, maxOfLanes, sumOfLanes } from "./math.ts";
import type { Vector } from "./value.ts";

const OFFSETS = paramOffsets(["x", "y"]);

/** y[i] = f(x[i]) for vectors of four. */
async function apply(
  f: (k: FunctionBody, x: Vector) => Vector,
  values: readonly number[],
): Promise<Float32Array> {
  const kernel = defineKernel("f", OFFSETS, (k, { param, begin, end }) => {
    const x = k.let(param("x"));
    const y = k.let(param("y"));
    k.for(begin, end, 1, (i) => {
      const at = k.let(i32.shl(i, 4));
      v128.store(i32.add(y, at), 0, f(k, v128.load(i32.add(x, at))));
    });
  });
  const harness = new KernelHarness([kernel]);
  const x = harness.arena.reserve("x", values.length * 4);
  const y = harness.arena.reserve("y", values.length * 4);
  const items = values.length / 4;
  const params = harness.program.params(OFFSETS, { x, y });
  harness.program.add({ kernel: "f", params, items: () => items });
  await harness.bind();
  harness.float32(x).set(values);
  harness.run();
  return harness.float32(y, values.length).slice();
}

const MANY = 4096;

describe("exp", () => {
  it("is right to 2e-7 of the value from -87 to 88", async () => {
    const values = Array.from({ length: MANY }, (_, i) =>
      Math.fround(-87 + (175 * i) / (MANY - 1)),
    );
    const results = await apply(exp, values);
    for (const [i, x] of values.entries()) {
      expect(Math.abs(results[i]! / Math.exp(x) - 1)).toBeLessThan(2e-7);
    }
  });

  it("is 1 at 0, and finite for what is too large or too small", async () => {
    const results = await apply(exp, [0, -0, 1e30, -1e30]);
    expect(results[0]).toBe(1);
    expect(results[1]).toBe(1);
    expect(results[2]! > 1e38 && results[2]! < Infinity).toBe(true);
    expect(results[3]! > 0 && results[3]! < 1e-37).toBe(true);
  });
});

describe("log", () => {
  it("is right to 3e-7 relative also near 1", async () => {
    const near = Array.from({ length: 64 }, (_, i) => 1 - (i + 1) * 2 ** -24);
    const wide = Array.from({ length: MANY - 64 }, (_, i) => Math.fround(2 ** (-60 + i / 40)));
    const values = [...near, ...wide];
    const results = await apply(log, values);
    for (const [i, x] of values.entries()) {
      const expected = Math.log(x);
      expect(Math.abs(results[i]! - expected)).toBeLessThanOrEqual(3e-7 * Math.abs(expected));
    }
  });
});

describe("lanes", () => {
  it("adds as (x0 + x2) + (x1 + x3), in every lane", async () => {
    expect([...(await apply(sumOfLanes, [1, 2, 30, 400]))]).toEqual([433, 433, 433, 433]);
  });

  it("finds the maximum, in every lane", async () => {
    expect([...(await apply(maxOfLanes, [1, -2, 30, 4]))]).toEqual([30, 30, 30, 30]);
  });
});
