import { describe, expect, test } from "vitest";
import { checkNumerics, NUMERICS_CASES, runNumerics } from "../../src/worker/numerics.ts";
import { openWasm } from "./openWasm.ts";

/** Less than half of what the start-up check allows. */
const TOLERANCES = { exact: 4e-3, fast: 0.4 } as const;

describe.each([
  ["exact", "relaxed"],
  ["exact", "plain"],
  ["fast", "relaxed"],
  ["fast", "plain"],
] as const)("the start-up check: %s, %s SIMD", (precision, simd) => {
  test.each(NUMERICS_CASES)("its model comes out right, twice alike: %#", async (expected) => {
    const backend = await openWasm(precision, simd);
    const first = await runNumerics(backend, expected);
    const errors = first.logits.map((logit, i) => Math.abs(logit - expected.logits[i]!));
    console.info(`worst error ${Math.max(...errors)}`);
    expect(Math.max(...errors)).toBeLessThan(TOLERANCES[precision]);
    expect(first.draws).toEqual(expected.draws);
    expect(await runNumerics(backend, expected)).toEqual(first);
    backend.dispose();
  });

  test("passes, and finds the same bits in steps of all sizes", async () => {
    const backend = await openWasm(precision, simd);
    expect(await checkNumerics(backend)).toEqual({ isBatchInvariant: true });
    backend.dispose();
  });
});
