import { expect } from "vitest";
import type { Backend } from "../../src/backends/ops.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import oracle from "../fixtures/oracle-logits.json" with { type: "json" };
import type { OracleCase } from "../fixtures/oracleCases.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";

/** llama.cpp computes in float32; its logits reach about 10. */
const TOLERANCE = 1e-3;

const expected: Record<string, { readonly logits: readonly string[] }> = oracle.cases;
const BLOCKS = [7, 3, 15, 0, 9, 1, 12, 4, 2, 14, 5];

/** Runs a case in steps of at most `rowsPerStep` rows and compares its logits with llama.cpp's. */
export async function checkOracleCase(
  backend: Backend,
  { name, model, tokens, positions }: OracleCase,
  rowsPerStep: number,
): Promise<void> {
  const plan = await makePlan(
    makeTinyModel(model),
    { kvCacheDtype: "f32", kvBlocks: 16, maxRows: 64 },
    backend,
  );
  const { logits } = expected[name]!;
  let worst = 0;
  let start = 0;
  let id = 0;
  for (const [i, position] of positions.entries()) {
    while (start <= position) {
      const end = Math.min(position + 1, start + rowsPerStep);
      const isSampled = end === position + 1;
      const rows = { slot: 1, tokens: tokens.slice(start, end), start, blocks: BLOCKS, isSampled };
      await plan.submit(makeStep(id++, 16, [rows])).result;
      start = end;
    }
    const found = await plan.readLogits();
    const wanted = decode(logits[i]!);
    expect(found.length).toBe(wanted.length);
    wanted.forEach((logit, token) => {
      // A NaN stays, and fails.
      worst = Math.max(worst, Math.abs(found[token]! - logit));
    });
  }
  plan.dispose();
  expect(worst, name).toBeLessThan(TOLERANCE);
}

function decode(base64: string): Float32Array {
  return new Float32Array(new Uint8Array(Buffer.from(base64, "base64")).buffer);
}
