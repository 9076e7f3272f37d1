import { afterAll, expect, test } from "vitest";
import { computeLogits } from "../../src/worker/numerics.ts";
import { EXPECTED_LOGITS } from "../../src/worker/numericsExpected.ts";
import { openBackend } from "./device.ts";

/** A tenth of what the start-up check allows: this adapter rounds f16 to nearest. */
const TOLERANCE = 1e-3 * 4;

const backend = await openBackend();
afterAll(() => backend.dispose());

test("the start-up check's model comes out right, twice alike", async () => {
  const first = await computeLogits(backend);
  const worst = Math.max(...first.map((logit, i) => Math.abs(logit - EXPECTED_LOGITS[i]!)));
  console.info(`worst error ${worst}`);
  expect(worst).toBeLessThan(TOLERANCE);
  expect(await computeLogits(backend)).toEqual(first);
});
