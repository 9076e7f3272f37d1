import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/backends/ops.ts";
import { LINEAR_TOKENS } from "../../src/backends/webgpu/kernelChoice.ts";
import { checkNumerics, NUMERICS_CASES, runNumerics } from "../../src/worker/numerics.ts";
import { FAMILIES, openBackend, testedIcd } from "./device.ts";

/** Less than half of what the start-up check allows: both drivers stay below 5e-4, f16 rounding included. */
const TOLERANCE = 4e-3;

describe.each(
  FAMILIES.flatMap((family) => NUMERICS_CASES.map((expected, i) => ({ family, i, expected }))),
)(`model $i of the start-up check on ${testedIcd}, $family`, ({ family, expected }) => {
  let backend: Backend;
  let first: Awaited<ReturnType<typeof runNumerics>>;
  beforeAll(async () => {
    backend = await openBackend({ kernels: { family } });
    const start = performance.now();
    first = await runNumerics(backend, expected);
    console.info(`took ${Math.round(performance.now() - start)} ms, with what it compiles`);
  });
  afterAll(() => backend.dispose());

  test("comes out right, twice alike, and the same bits in steps of all sizes", async () => {
    const errors = first.logits.map((logit, i) => Math.abs(logit - expected.logits[i]!));
    console.info(`worst error ${Math.max(...errors)}`);
    expect(Math.max(...errors)).toBeLessThan(TOLERANCE);
    expect(first.draws).toEqual(expected.draws);
    for (const { token, likeliest } of first.greedy) expect(token).toBe(likeliest);
    expect(first.isBatchInvariant).toBe(true);
    const start = performance.now();
    expect(await runNumerics(backend, expected)).toEqual(first);
    console.info(`took ${Math.round(performance.now() - start)} ms the second time`);
  });

  test("comes out the same with any one variant of the linear kernels", async () => {
    // Where threads share K, 8 rows a thread is what runs without sharing.
    for (const tokens of family === "flat" ? LINEAR_TOKENS : ([8] as const)) {
      const steady = await openBackend({ kernels: { family, linearTokens: [tokens] } });
      expect(await runNumerics(steady, expected), `${tokens}`).toEqual(first);
      steady.dispose();
    }
  });
});

test.each(FAMILIES)("the start-up check passes, %s", async (family) => {
  const backend = await openBackend({ kernels: { family, linearTokens: [4] } });
  expect(await checkNumerics(backend)).toEqual({ isBatchInvariant: true });
  backend.dispose();
});
