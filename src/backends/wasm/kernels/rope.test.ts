import { describe, expect, it } from "vitest";
import { roundToHalf } from "../../reference/half.ts";
import { type AttentionSpec, AttentionWorld, DEFAULT_SPEC } from "../testing/attentionWorld.ts";

/** f32 arithmetic on values of size 2, with norms some 4. */
const TOLERANCE = 1e-6;

function largestError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  let largest = 0;
  for (let i = 0; i < found.length; i++) {
    const error = Math.abs(found[i]! - expected[i]!);
    if (!(error <= largest)) largest = error; // NaN stays
  }
  return largest;
}

async function check(part: Partial<AttentionSpec>): Promise<void> {
  const world = await AttentionWorld.create(part);
  const { numHeads, numKvHeads, headDim, lengths, kvCacheDtype } = world.spec;
  const rows = lengths.flatMap((length, slot) =>
    Array.from({ length }, (_, position) => world.row(slot, position)),
  );
  world.run(rows, 2);
  for (const [i, row] of rows.entries()) {
    const queries = world.queries(i);
    for (let head = 0; head < numHeads; head++) {
      const found = queries.subarray(head * headDim, (head + 1) * headDim);
      expect(largestError(found, world.expectedHead(row, head))).toBeLessThan(TOLERANCE);
    }
    for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
      const k = world.expectedHead(row, numHeads + kvHead);
      const v = world.expectedHead(row, numHeads + numKvHeads + kvHead);
      const foundK = world.stored(row, "k", kvHead);
      if (kvCacheDtype === "f32") {
        expect(largestError(foundK, k)).toBeLessThan(TOLERANCE);
        expect([...world.stored(row, "v", kvHead)]).toEqual([...v]);
      } else {
        // A value next to the middle of two halves may fall to either: half a step more at most.
        for (const [d, value] of foundK.entries()) {
          const step = 2 ** (Math.floor(Math.log2(Math.max(Math.abs(value), 2 ** -14))) - 10);
          expect(Math.abs(value - k[d]!)).toBeLessThanOrEqual(step / 2 + TOLERANCE);
        }
        expect([...world.stored(row, "v", kvHead)]).toEqual([...v].map(roundToHalf));
      }
    }
  }
}

describe.each(["f16", "f32"] as const)("ropeWriteKv_%s", (kvCacheDtype) => {
  it.each([64, 80, 96, 128, 256, 72])("turns and stores heads of %i", async (headDim) => {
    await check({ kvCacheDtype, headDim, pairs: headDim / 2, lengths: [9, 3] });
  });

  it.each([8, 16, 32] as const)("writes blocks of %i", async (blockSize) => {
    await check({ kvCacheDtype, blockSize, lengths: [33, 1, 40] });
  });

  it.each([
    ["adjacent", 32],
    ["adjacent", 16],
    ["adjacent", 7],
    ["neox", 32],
    ["neox", 16],
    ["neox", 10],
    ["neox", 3],
  ] as const)("turns %s pairs, %i of them", async (pairing, pairs) => {
    await check({ kvCacheDtype, pairing, pairs });
    await check({ kvCacheDtype, pairing, pairs, hasHeadNorms: true });
  });
});

it("gives the same bits in any number of chunks and in any company", async () => {
  const world = await AttentionWorld.create({ ...DEFAULT_SPEC, lengths: [20, 70] });
  const rows = [3, 4, 5].map((position) => world.row(1, position));
  world.run(rows);
  const alone = rows.map((_, i) => world.queries(i));
  for (const numThreads of [2, 3, 7]) {
    world.run([world.row(0, 19), ...rows, world.row(1, 6)], numThreads);
    expect(rows.map((_, i) => world.queries(i + 1))).toEqual(alone);
  }
});
