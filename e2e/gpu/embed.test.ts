import { afterAll, expect, test } from "vitest";
import type { Backend, Plan } from "../../src/backends/ops.ts";
import { createReferenceBackend } from "../../src/backends/reference/backend.ts";
import { SAMPLED_TOKEN } from "../../src/engine/step.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { openBackend, testedIcd } from "./device.ts";

/** f32 against float64; the logits reach about 10. */
const TOLERANCE = 1e-4;

/** Rows of 64 Q8_0 weights take 64 bytes: a binding sees 256 of the table's 1000. */
const WINDOW_BYTES = 16_384;
const TOKENS = [0, 255, 256, 511, 512, 767, 768, 999];

const MODEL = makeTinyModel({ type: "Q8_0", vocabularySize: 1000, layers: 1, contextLength: 64 });
const OPTIONS = {
  kvCacheDtype: "f16",
  kvBlocks: 4,
  blockSize: 8,
  maxSequences: 2,
  maxRows: 4,
} as const;
const BLOCKS = [2, 0, 3, 1];

const whole = await openBackend();
const windowed = await openBackend({ maxBindingBytes: WINDOW_BYTES });
afterAll(() => {
  whole.dispose();
  windowed.dispose();
});

test(`row windows of embedding and output give the same bits, on ${testedIcd}`, async () => {
  const wanted = await logitsByStep(createReferenceBackend());
  const found = await logitsByStep(whole);
  expect(await logitsByStep(windowed)).toEqual(found);
  let worst = 0;
  for (const [i, logits] of wanted.entries()) {
    expect(found[i]).toHaveLength(logits.length);
    for (const [id, logit] of logits.entries()) {
      worst = Math.max(worst, Math.abs(found[i]![id]! - logit));
    }
  }
  expect(worst).toBeLessThan(TOLERANCE);
});

test.each([
  ["whole", whole],
  ["in windows", windowed],
])("a row of SAMPLED_TOKEN takes the id last sampled for its slot: %s", async (_, backend) => {
  const given = await makePlan(MODEL, OPTIONS, backend);
  const fed = await makePlan(MODEL, OPTIONS, backend);
  let token = 700;
  for (let start = 0; start < 4; start++) {
    // Slot 0 is in the way, with a token of its own.
    const other = { slot: 0, tokens: [start], start, blocks: [3], isSampled: true };
    const own = { slot: 1, start, blocks: [1], isSampled: true };
    const step = (tokens: number[]) => makeStep(start, 8, [other, { ...own, tokens }]);
    const first = await given.submit(step([token])).result;
    const second = await fed.submit(step([start === 0 ? token : SAMPLED_TOKEN])).result;
    expect(second.tokens).toEqual(first.tokens);
    expect(await bitsOfLogits(fed)).toEqual(await bitsOfLogits(given));
    token = first.tokens[1]!;
  }
  given.dispose();
  fed.dispose();
});

/** The logits after each of TOKENS, one a step. */
async function logitsByStep(backend: Backend): Promise<readonly Float32Array[]> {
  const plan = await makePlan(MODEL, OPTIONS, backend);
  const logits: Float32Array[] = [];
  for (const [start, token] of TOKENS.entries()) {
    const rows = { slot: 1, tokens: [token], start, blocks: BLOCKS, isSampled: true };
    await plan.submit(makeStep(start, 8, [rows])).result;
    logits.push(await plan.readLogits());
  }
  plan.dispose();
  return logits;
}

async function bitsOfLogits(plan: Plan): Promise<Uint32Array> {
  const logits = await plan.readLogits();
  return new Uint32Array(logits.buffer);
}
