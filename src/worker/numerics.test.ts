import { expect, test } from "vitest";
import type { Backend, Plan } from "../backends/ops.ts";
import { createReferenceBackend } from "../backends/reference/backend.ts";
import { checkNumerics, computeLogits } from "./numerics.ts";
import { EXPECTED_LOGITS } from "./numericsExpected.ts";

test("the expected logits are the float64 reference's", async () => {
  const logits = await computeLogits(createReferenceBackend());
  expect(logits.length).toBe(EXPECTED_LOGITS.length);
  for (const [i, logit] of logits.entries()) expect(EXPECTED_LOGITS[i]).toBeCloseTo(logit, 4);
  // Wide enough to tell a wrong kernel, and not so wide that only one token counts.
  expect(Math.max(...logits) - Math.min(...logits)).toBeGreaterThan(2);
});

test("a back end that computes right passes", async () => {
  await expect(checkNumerics(createReferenceBackend())).resolves.toBeUndefined();
});

test.each([
  ["one logit off", (logits: Float32Array) => logits.fill(logits[7]! + 0.02, 7, 8)],
  ["not a number", (logits: Float32Array) => logits.fill(Number.NaN, 39, 40)],
  ["all zero", (logits: Float32Array) => logits.fill(0)],
])("%s is refused by code", async (_, spoil) => {
  await expect(checkNumerics(spoiled(spoil))).rejects.toMatchObject({ code: "adapter-numerics" });
});

/** The reference back end on an adapter that spoils its logits. */
function spoiled(spoil: (logits: Float32Array) => Float32Array): Backend {
  const reference = createReferenceBackend();
  return {
    ...reference,
    createPlanBuilder: (spec) => {
      const builder = reference.createPlanBuilder(spec);
      const finish = builder.finish.bind(builder);
      builder.finish = async (signal) => {
        const plan: Plan = await finish(signal);
        const readLogits = plan.readLogits.bind(plan);
        plan.readLogits = async () => spoil(await readLogits());
        return plan;
      };
      return builder;
    },
  };
}
