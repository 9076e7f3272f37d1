import { afterAll, expect, test } from "vitest";
import { computeLogits } from "../../src/worker/numerics.ts";
import { EXPECTED_LOGITS } from "../../src/worker/numericsExpected.ts";
import { openBackend } from "./device.ts";

/** Less than half of what the start-up check allows: both drivers stay below 5e-4, f16 rounding included. */
const TOLERANCE = 4e-3;

const backend = await openBackend();
afterAll(() => backend.dispose());

test("the start-up check's model comes out right, twice alike", async () => {
  const first = await computeLogits(backend);
  const worst = Math.max(...first.map((logit, i) => Math.abs(logit - EXPECTED_LOGITS[i]!)));
  console.info(`worst error ${worst}`);
  expect(worst).toBeLessThan(TOLERANCE);
  expect(await computeLogits(backend)).toEqual(first);
});
