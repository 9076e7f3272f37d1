import { expect, test } from "vitest";
import { checkNumerics, computeLogits } from "../../src/worker/numerics.ts";
import { EXPECTED_LOGITS } from "../../src/worker/numericsExpected.ts";
import { openWasm } from "./openWasm.ts";

/** Less than half of what the start-up check allows. */
const TOLERANCES = { exact: 4e-3, fast: 0.4 } as const;

test.each([
  ["exact", "relaxed"],
  ["exact", "plain"],
  ["fast", "relaxed"],
  ["fast", "plain"],
] as const)(
  "the start-up check's model comes out right, twice alike: %s, %s SIMD",
  async (precision, simd) => {
    const backend = await openWasm(precision, simd);
    const first = await computeLogits(backend);
    const worst = Math.max(...first.map((logit, i) => Math.abs(logit - EXPECTED_LOGITS[i]!)));
    console.info(`worst error ${worst}`);
    expect(worst).toBeLessThan(TOLERANCES[precision]);
    expect(await computeLogits(backend)).toEqual(first);
    await checkNumerics(backend);
    backend.dispose();
  },
);
