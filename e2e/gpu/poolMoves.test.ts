import { expect, test } from "vitest";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { describePoolMoves } from "../suites/poolMoves.ts";
import { openBackend, testedIcd } from "./device.ts";

describePoolMoves(testedIcd, () => openBackend());

test("dispose ends a step whose blocks are on their way out", async () => {
  const backend = await openBackend();
  // The kernels are the suite's, which drivers keep: lavapipe takes half a minute for others.
  const model = makeTinyModel({ type: "Q8_0", layers: 1, headDim: 64 });
  const sizes = { kvBlocks: 4, maxSequences: 6, maxRows: 136, maxContext: 160 };
  const plan = await makePlan(model, { ...sizes, kvCacheDtype: "f32" }, backend);
  const rows = { slot: 0, tokens: [5, 6, 7], start: 0, blocks: [2], isSampled: true };
  const swapOuts = [{ block: 2, hostBlock: 0 }];
  await plan.submit(makeStep(0, 16, [rows], { swapOuts })).result;
  expect(plan.memory.swapped).toBe(plan.blockBytes);
  const { result } = plan.submit(makeStep(1, 16, [rows], { swapOuts }));
  plan.dispose();
  await expect(result).rejects.toMatchObject({ code: "disposed" });
  expect(plan.memory.swapped).toBe(0);
  backend.dispose();
});
