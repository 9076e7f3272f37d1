import { afterAll, expect, test } from "vitest";
import type { Plan } from "../../src/backends/ops.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import { Random } from "../fixtures/random.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { openBackend, testedIcd } from "./device.ts";

const BLOCK_SIZE = 16;
const NUM_BLOCKS = 20;
/** Tokens that fill the pool: two KV splits. */
const LENGTH = NUM_BLOCKS * BLOCK_SIZE;

const backend = await openBackend();
afterAll(() => backend.dispose());

function open(contextLength: number): Promise<Plan> {
  const model = makeTinyModel({ type: "Q4_1", layers: 2, seed: 12, contextLength });
  const options = { kvBlocks: NUM_BLOCKS, maxSequences: 4, maxRows: 64 };
  return makePlan(model, options, backend);
}

/** The bits of the logits of every eighth position, of a sequence that takes the whole pool. */
async function run(plan: Plan): Promise<readonly (readonly number[])[]> {
  const random = new Random(4);
  const tokens = Array.from({ length: LENGTH }, () => random.integer(3, 299));
  const blocks = Array.from({ length: NUM_BLOCKS }, (_, i) => (i * 7 + 3) % NUM_BLOCKS);
  const bits: number[][] = [];
  for (let start = 0, id = 0; start < LENGTH; start += 8, id++) {
    const rows = {
      slot: 2,
      tokens: tokens.slice(start, start + 8),
      start,
      blocks,
      isSampled: true,
    };
    await plan.submit(makeStep(id, BLOCK_SIZE, [rows])).result;
    bits.push([...new Uint32Array((await plan.readLogits()).buffer)]);
  }
  return bits;
}

test(`a context far beyond the pool changes no bit, to the pool's last slot, and costs nothing, on ${testedIcd}`, async () => {
  const [fitting, long] = [await open(LENGTH), await open(1_000_000)];
  expect(await run(long)).toEqual(await run(fitting));
  expect(long.maxRows).toBe(fitting.maxRows);
  expect(long.memory).toEqual(fitting.memory);
  fitting.dispose();
  long.dispose();
});
