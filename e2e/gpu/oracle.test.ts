import { afterAll, expect, test } from "vitest";
import { ORACLE_CASES } from "../fixtures/oracleCases.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import oracle from "../fixtures/oracle-logits.json" with { type: "json" };
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { openBackend } from "./device.ts";

/** llama.cpp computes in float32; its logits reach about 10. */
const TOLERANCE = 1e-3;

const backend = await openBackend();
afterAll(() => backend.dispose());

const expected: Record<string, { logits: readonly string[] }> = oracle.cases;

test.each(ORACLE_CASES)("$name: logits equal llama.cpp's", async ({ name, model, ...run }) => {
  const { logits } = expected[name]!;
  const plan = await makePlan(makeTinyModel(model), { kvCacheDtype: "f32", kvBlocks: 16 }, backend);
  const blocks = [7, 3, 15, 0, 9, 1, 12, 4, 2, 14, 5];

  let start = 0;
  let worst = 0;
  for (const [i, position] of run.positions.entries()) {
    const tokens = run.tokens.slice(start, position + 1);
    const step = makeStep(i, 16, [{ slot: 1, tokens, start, blocks, isSampled: true }]);
    await plan.submit(step).result;
    const found = await plan.readLogits();
    const wanted = decode(logits[i]!);
    expect(found.length).toBe(wanted.length);
    for (const [id, logit] of wanted.entries())
      worst = Math.max(worst, Math.abs(found[id]! - logit));
    start = position + 1;
  }
  plan.dispose();
  expect(worst).toBeLessThan(TOLERANCE);
});

function decode(base64: string): Float32Array {
  return new Float32Array(new Uint8Array(Buffer.from(base64, "base64")).buffer);
}
