import { describe, expect, it } from "vitest";
import type { StepRow } from "../../../engine/step.ts";
import { type AttentionSpec, AttentionWorld } from "../testing/attentionWorld.ts";
import { defineAttentionKernels } from "./attention.ts";
import { byName, emitModule } from "./module.ts";

/** f32 sums over the head and the context, of values up to 2. */
const TOLERANCE = 3e-6;

function expectClose(world: AttentionWorld, rows: readonly StepRow[], numThreads = 1): void {
  const results = world.run(rows, numThreads);
  for (const [i, row] of rows.entries()) {
    const expected = world.expectedAttention(i, row);
    let largest = 0;
    for (const [d, value] of results[i]!.entries()) {
      const error = Math.abs(value - expected[d]!);
      if (!(error <= largest)) largest = error; // NaN stays
    }
    expect(largest).toBeLessThan(TOLERANCE);
  }
}

async function check(spec: Partial<AttentionSpec>): Promise<void> {
  const world = await AttentionWorld.create(spec);
  const lastRows = world.spec.lengths.map((length, slot) => world.row(slot, length - 1));
  expectClose(world, lastRows);
}

const CONTEXTS = [1, 3, 4, 63, 64, 65, 128, 300];

describe.each(["f16", "f32"] as const)("attention over a %s cache", (kvCacheDtype) => {
  it.each([64, 80, 96, 128, 256, 8, 72])("runs heads of %i", async (headDim) => {
    await check({ kvCacheDtype, headDim, pairs: headDim / 2, lengths: CONTEXTS });
  });

  it.each([1, 2, 3, 4, 5, 7, 8])("runs %i query heads a KV head", async (group) => {
    await check({ kvCacheDtype, numKvHeads: 2, numHeads: 2 * group, lengths: CONTEXTS });
  });

  it.each([8, 16, 32] as const)("walks blocks of %i", async (blockSize) => {
    await check({ kvCacheDtype, blockSize, lengths: CONTEXTS });
  });

  it("runs prompts beside decoding rows", async () => {
    const world = await AttentionWorld.create({ kvCacheDtype, lengths: [150, 20, 200] });
    const rows = [
      ...Array.from({ length: 80 }, (_, i) => world.row(0, 60 + i)),
      world.row(1, 19),
      ...Array.from({ length: 5 }, (_, i) => world.row(2, 190 + i)),
    ];
    expectClose(world, rows, 2);
  });

  it("gives the same bits in any number of chunks and in any company", async () => {
    const world = await AttentionWorld.create({ kvCacheDtype, lengths: [150, 20, 200] });
    const rows = [2, 63, 64, 130].map((position) => world.row(0, position));
    const alone = rows.map((row) => world.run([row])[0]!);
    for (const numThreads of [1, 2, 3, 8]) {
      const together = world.run([world.row(1, 7), ...rows, world.row(2, 199)], numThreads);
      expect(together.slice(1, -1)).toEqual(alone);
    }
  });

  it("does not see what lies in slots behind its position", async () => {
    const results: Float32Array[][] = [];
    for (const garbage of [0xff, 0x00, 0x7c, 0xfc]) {
      const world = await AttentionWorld.create({ kvCacheDtype, lengths: [67, 5] }, garbage);
      results.push([...world.run([world.row(0, 66), world.row(1, 4)])]);
    }
    for (const result of results) {
      expect(result).toEqual(results[0]);
      expect(result.every((row) => row.every(Number.isFinite))).toBe(true);
    }
  });

  it("stays finite where q, k and v are huge", async () => {
    const world = await AttentionWorld.create({ kvCacheDtype, inputScale: 1e6, lengths: [100] });
    const [result] = world.run([world.row(0, 99)]);
    const largest = kvCacheDtype === "f16" ? 65504 : 2e6;
    for (const value of result!) expect(Math.abs(value)).toBeLessThanOrEqual(largest * 1.001);
    expect(result!.some((value) => Math.abs(value) > largest / 10)).toBe(true);
  });

  it("keeps its accuracy where q, k and v are tiny", async () => {
    const inputScale = 2 ** -8;
    const world = await AttentionWorld.create({ kvCacheDtype, inputScale, lengths: [100] });
    const rows = [world.row(0, 99)];
    const [result] = world.run(rows);
    const expected = world.expectedAttention(0, rows[0]!);
    for (const [d, value] of result!.entries()) {
      expect(Math.abs(value - expected[d]!)).toBeLessThan(TOLERANCE * inputScale);
    }
  });
});

it("stays below 25 KB in all", () => {
  expect(emitModule(byName(defineAttentionKernels())).bytes.length).toBeLessThan(25_000);
});
