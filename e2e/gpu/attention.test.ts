import { afterAll, describe, expect, test } from "vitest";
import { attention, rmsNorm, rope } from "../../src/backends/reference/kernels.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import type { KernelFamily } from "../../src/backends/webgpu/kernelChoice.ts";
import { KV_SPLIT } from "../../src/backends/webgpu/stepBuffer.ts";
import type { StepRow } from "../../src/engine/step.ts";
import { halfToNumber } from "../../src/weights/half.ts";
import { Random } from "../fixtures/random.ts";
import {
  type AttentionHarness,
  type AttentionOptions,
  type AttentionState,
  createAttentionHarness,
} from "./attentionHarness.ts";
import { FAMILIES, openDevice, testedIcd } from "./device.ts";
import { compileAtFirstUse } from "./lazyPipelines.ts";

/** Of a head's largest element: products with rounded table values, and inverseSqrt's 2 units. */
const ROPE_TOLERANCE = 16 * 2 ** -24;

/** WGSL leaves open how f32 becomes f16: either neighbour will do. Subnormal ones are 2^-24 apart. */
const HALF_TOLERANCE = 2 ** -10;
const HALF_STEP = 2 ** -24;

/**
 * Of the largest |v|: f32 scores of a few units, from up to 256 products, are off by some 1e-6, and WGSL allows
 * exp(x) an error of 3 + 2 |x| units. Measured: 2e-7 at most.
 */
const MIX_TOLERANCE = 5e-6;

const MAX_CONTEXT = 520;

/** One row each, at edges of blocks and of KV splits. */
const POSITIONS = [0, 1, 15, 16, 17, 255, 256, 257, 511, 513];

/** Prompt chunks: first position and number of rows. */
const CHUNKS = [
  [14, 3],
  [254, 5],
] as const;

type Config = Pick<
  AttentionOptions,
  "numHeads" | "numKvHeads" | "headDim" | "kvCacheDtype" | "blockSize" | "hasHeadNorms"
> & { readonly pairing: "neox" | "adjacent"; readonly rotaryDims: number };

const CONFIGS: readonly Config[] = [
  config(64, 9, 3, "f16", 16, "adjacent", false),
  config(80, 2, 2, "f32", 8, "neox", false),
  config(96, 8, 1, "f16", 32, "neox", true), // 4 heads a thread
  config(128, 7, 1, "f16", 16, "neox", true),
  { ...config(256, 2, 1, "f32", 32, "adjacent", true), rotaryDims: 64 },
];

const device = await openDevice();
compileAtFirstUse(device);
const kernels = new KernelCache(device);
const errors: string[] = [];
device.addEventListener("uncapturederror", ({ error }) => errors.push(error.message));
afterAll(() => {
  device.destroy();
  expect(errors).toEqual([]);
});

describe.each(FAMILIES)(`%s attention on ${testedIcd}`, (family) => {
  test.each(CONFIGS)(
    "heads of $headDim, $numHeads on $numKvHeads, $kvCacheDtype blocks of $blockSize, $pairing",
    async (own) => {
      const scene = await createScene(family, own, 1);
      const { harness, rows, entries, before } = scene;
      const state = await harness.run({ rows, blockTableEntries: entries });
      checkBlockTables(scene, state);
      checkRopeAndPool(scene, state);
      const { worst } = checkMixed(scene, state);
      expect(worst).toBeLessThan(MIX_TOLERANCE);

      // The same rows in other company: the same bits.
      harness.writePool(before);
      const half = reversedSequences(rows);
      const again = await harness.run({ rows: half, blockTableEntries: [] });
      for (const [i, { slot, position }] of half.entries()) {
        const at = rows.findIndex((row) => row.slot === slot && row.position === position);
        expect(bitsOf(again.mixed, i, harness), `position ${position}`).toEqual(
          bitsOf(state.mixed, at, harness),
        );
      }

      // No rows: only the block tables change.
      const entry = { slot: 11, index: 2, block: 77 };
      const idle = await harness.run({ rows: [], blockTableEntries: [entry] });
      expect(idle.mixed).toEqual(again.mixed);
      expect(idle.pool).toEqual(again.pool);
      const changed = again.blockTables.slice();
      changed[11 * tableBlocks(own) + 2] = 77;
      expect(idle.blockTables).toEqual(changed);
      harness.dispose();
    },
  );

  test("sharp and huge scores: the best key wins, and nothing is infinite", async () => {
    for (const [keyGain, tolerance] of [
      [10, 1e-3], // scores of hundreds, off by some 1e-4
      [1e6, undefined], // of 1e12: f32 can't tell neighbours apart
      [1e15, undefined], // of 1e30
    ] as const) {
      const scene = await createScene(family, CONFIGS[1]!, keyGain);
      const state = await scene.harness.run({ rows: scene.rows, blockTableEntries: scene.entries });
      checkRopeAndPool(scene, state);
      const { worst, isBounded } = checkMixed(scene, state);
      expect(isBounded, `scores of ${keyGain ** 2}`).toBe(true);
      if (tolerance !== undefined) expect(worst).toBeLessThan(tolerance);
      scene.harness.dispose();
    }
  });

  test("what is beyond the largest f16 is held there", async () => {
    const scene = await createScene(family, CONFIGS[0]!, 1e6);
    const { harness, rows, entries } = scene;
    const { qkv, pool } = await harness.run({ rows, blockTableEntries: entries });
    const { numHeads, numKvHeads, headDim } = harness.spec;
    let numHeld = 0;
    for (const [r, { kvSlot }] of rows.entries()) {
      for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
        const at = (r * (numHeads + 2 * numKvHeads) + numHeads + kvHead) * headDim;
        const key = poolHead(harness.spec, pool, poolIndex(harness.spec, kvSlot, 0, kvHead));
        for (let d = 0; d < headDim; d += 2) {
          // RoPE turns pairs of neighbours: one of the two is at least so large.
          const length = Math.hypot(qkv[at + d]!, qkv[at + d + 1]!);
          if (length < Math.SQRT2 * 65_504 * 1.001) continue;
          const largest = Math.max(Math.abs(key[d]!), Math.abs(key[d + 1]!));
          expect(largest, `position ${rows[r]!.position}`).toBe(65_504);
          numHeld += 1;
        }
      }
    }
    expect(numHeld).toBeGreaterThan(1000);
    harness.dispose();
  });

  test("work items that see nothing give zeros, or leave the merge to the others", async () => {
    const scene = await createScene(family, CONFIGS[0]!, 1);
    const { harness, rows, entries, before } = scene;
    const state = await harness.run({ rows, blockTableEntries: entries });
    harness.writePool(before);
    const whole = rows.findIndex(({ position }) => position === 255);
    const split = rows.findIndex(({ position }) => position === 256);
    // Empties row 255's only item, and the second of row 256's two, which holds position 256 alone.
    const masked = await harness.run({ rows, blockTableEntries: [] }, (words) => {
      const [numItems, itemsAt] = [words[4]!, words[5]!];
      for (let at = itemsAt; at < itemsAt + 4 * numItems; at += 4) {
        const isWhole = words[at] === whole;
        const isSecond = words[at] === split && words[at + 1] === KV_SPLIT;
        if (isWhole || isSecond) words[at + 2] = words[at + 1]!;
      }
    });
    const width = harness.spec.numHeads * harness.spec.headDim;
    const rowOf = (row: number, { mixed }: AttentionState) =>
      mixed.subarray(row * width, (row + 1) * width);
    expect(rowOf(whole, masked).every((value) => value === 0)).toBe(true);
    const { worst } = checkMixed(scene, masked, { row: split, end: KV_SPLIT });
    expect(worst).toBeLessThan(MIX_TOLERANCE);
    for (const [row] of rows.entries()) {
      if (row === whole || row === split) continue;
      expect(rowOf(row, masked)).toEqual(rowOf(row, state));
    }
    harness.dispose();
  });
});

interface Scene {
  readonly harness: AttentionHarness;
  readonly rows: readonly StepRow[];
  readonly entries: readonly { slot: number; index: number; block: number }[];
  /** What the pool holds at first: tokens before the rows, and NaN where nobody may look. */
  readonly before: Uint32Array<ArrayBuffer>;
  readonly tables: readonly (readonly number[])[];
}

async function createScene(family: KernelFamily, own: Config, keyGain: number): Promise<Scene> {
  const { headDim, blockSize, pairing, rotaryDims, numKvHeads, kvCacheDtype } = own;
  const random = new Random(headDim);
  const sequences = [...POSITIONS.map((position) => [position, 1] as const), ...CHUNKS];
  const blockCounts = sequences.map(([first, count]) => Math.ceil((first + count) / blockSize));
  const numBlocks = blockCounts.reduce((sum, count) => sum + count, 3);
  const order = Array.from({ length: numBlocks }, (_, block) => block);
  for (let i = numBlocks - 1; i > 0; i--) {
    const j = random.integer(0, i);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const tables = blockCounts.map((count) => order.splice(0, count));
  const frequencies = Float64Array.from(
    { length: rotaryDims / 2 },
    (_, i) => 10_000 ** ((-2 * i) / rotaryDims),
  );
  const harness = await createAttentionHarness(device, kernels, {
    ...own,
    family,
    rope: { pairing, frequencies, magnitude: pairing === "neox" ? 1.1 : 1 },
    numBlocks,
    maxSequences: sequences.length,
    maxContext: MAX_CONTEXT,
    keyGain,
  });

  const numValues = numBlocks * 2 * numKvHeads * blockSize * headDim;
  const before = new Uint32Array(kvCacheDtype === "f16" ? numValues / 2 : numValues);
  before.fill(kvCacheDtype === "f16" ? 0x7e007e00 : 0x7fc00000);
  const floats = new Float32Array(before.buffer);
  for (const [slot, [first]] of sequences.entries()) {
    for (let position = 0; position < first; position++) {
      const kvSlot = kvSlotOf(tables[slot]!, position, blockSize);
      for (const part of [0, 1] as const) {
        for (let head = 0; head < numKvHeads; head++) {
          const at = poolIndex(own, kvSlot, part, head);
          for (let d = 0; d < headDim; d++) {
            if (kvCacheDtype === "f32") {
              floats[at + d] = (part === 0 ? keyGain : 1) * random.uniform(-1.7, 1.7);
            } else if (d % 2 === 0) {
              before[(at + d) / 2] = (randomHalf(random) | (randomHalf(random) << 16)) >>> 0;
            }
          }
        }
      }
    }
  }
  harness.writePool(before);
  return {
    harness,
    before,
    tables,
    rows: sequences.flatMap(([first, count], slot) =>
      Array.from({ length: count }, (_, i) => ({
        slot,
        token: random.integer(0, 63),
        position: first + i,
        kvSlot: kvSlotOf(tables[slot]!, first + i, blockSize),
      })),
    ),
    entries: tables.flatMap((table, slot) => table.map((block, index) => ({ slot, index, block }))),
  };
}

function checkBlockTables({ harness, tables }: Scene, { blockTables }: AttentionState): void {
  for (const [slot, table] of tables.entries()) {
    const at = slot * tableBlocks(harness.spec);
    expect([...blockTables.subarray(at, at + table.length)]).toEqual(table);
  }
}

/** Queries, and K and V in their slots; everywhere else the pool is as before. */
function checkRopeAndPool({ harness, rows, before }: Scene, state: AttentionState): void {
  const { spec, gains } = harness;
  const { numHeads, numKvHeads, headDim } = spec;
  const untouched = state.pool.slice();
  const wordsPerHead = spec.kvCacheDtype === "f16" ? headDim / 2 : headDim;
  for (const [r, { position, kvSlot }] of rows.entries()) {
    for (let h = 0; h < numHeads + 2 * numKvHeads; h++) {
      const at = (r * (numHeads + 2 * numKvHeads) + h) * headDim;
      let wanted = Float64Array.from(state.qkv.subarray(at, at + headDim));
      const isQuery = h < numHeads;
      const isValue = h >= numHeads + numKvHeads;
      if (gains && !isValue)
        wanted = rmsNorm(wanted, isQuery ? gains.q : gains.k, spec.rmsEpsilon) as typeof wanted;
      if (!isValue) wanted = rope(wanted, position, spec.rope) as typeof wanted;
      const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const isHalf = !isQuery && spec.kvCacheDtype === "f16";
      const kvHead = (h - numHeads) % numKvHeads;
      const poolAt = poolIndex(spec, kvSlot, isValue ? 1 : 0, kvHead);
      const found = isQuery
        ? state.queries.subarray((r * numHeads + h) * headDim, (r * numHeads + h + 1) * headDim)
        : poolHead(spec, state.pool, poolAt);
      for (const [d, value] of wanted.entries()) {
        const allowed =
          (isValue ? 0 : ROPE_TOLERANCE * largest) +
          (isHalf ? HALF_TOLERANCE * Math.abs(value) + HALF_STEP : 0);
        if (!(Math.abs(found[d]! - value) <= allowed)) {
          expect.fail(`Head ${h} of position ${position} has ${found[d]} at ${d}, not ${value}.`);
        }
      }
      if (!isQuery) {
        const word = (poolAt / headDim) * wordsPerHead;
        untouched.set(before.subarray(word, word + wordsPerHead), word);
      }
    }
  }
  expect(untouched.findIndex((word, i) => word !== before[i])).toBe(-1);
}

/** The largest error of the mixed values, relative to the largest |v|; and if all are within v's range. */
function checkMixed(
  { harness, rows, tables }: Scene,
  state: AttentionState,
  only?: { readonly row: number; readonly end: number },
): { worst: number; isBounded: boolean } {
  const { spec } = harness;
  const { numHeads, numKvHeads, headDim, blockSize } = spec;
  let worst = 0;
  let isBounded = true;
  for (const [r, { slot, position }] of rows.entries()) {
    if (only && only.row !== r) continue;
    const heads = (part: 0 | 1, kvHead: number) =>
      Array.from({ length: only?.end ?? position + 1 }, (_, p) => {
        const kvSlot = kvSlotOf(tables[slot]!, p, blockSize);
        return poolHead(spec, state.pool, poolIndex(spec, kvSlot, part, kvHead));
      });
    for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
      const keys = heads(0, kvHead);
      const values = heads(1, kvHead);
      const largest = values.reduce(
        (most, value) => value.reduce((m, v) => Math.max(m, Math.abs(v)), most),
        0,
      );
      for (let g = 0; g < numHeads / numKvHeads; g++) {
        const h = (kvHead * numHeads) / numKvHeads + g;
        const at = (r * numHeads + h) * headDim;
        const q = Float64Array.from(state.queries.subarray(at, at + headDim));
        attention(q, keys, values).forEach((wanted, d) => {
          const found = state.mixed[at + d]!;
          worst = Math.max(worst, Math.abs(found - wanted) / largest);
          isBounded &&= Math.abs(found) <= largest * 1.0001;
        });
      }
    }
  }
  return { worst, isBounded };
}

/** Every other sequence, last first: rows of a sequence stay adjacent and ascending. */
function reversedSequences(rows: readonly StepRow[]): readonly StepRow[] {
  const slots = [...new Set(rows.map(({ slot }) => slot))]
    .reverse()
    .filter((slot) => slot % 2 === 1);
  return slots.flatMap((slot) => rows.filter((row) => row.slot === slot));
}

function bitsOf(mixed: Float32Array, row: number, { spec }: AttentionHarness): Uint32Array {
  const width = spec.numHeads * spec.headDim;
  return new Uint32Array(mixed.slice(row * width, (row + 1) * width).buffer);
}

/** One head of one token, as numbers. */
function poolHead(
  { kvCacheDtype, headDim }: Pick<Config, "kvCacheDtype" | "headDim">,
  pool: Uint32Array<ArrayBuffer>,
  at: number,
): ArrayLike<number> & Iterable<number> & Pick<Float32Array, "reduce"> {
  if (kvCacheDtype === "f32") return new Float32Array(pool.buffer, at * 4, headDim);
  return Float32Array.from(new Uint16Array(pool.buffer, at * 2, headDim), halfToNumber);
}

/** Index of the first value of a head of a token. */
function poolIndex(
  { numKvHeads, blockSize, headDim }: Pick<Config, "numKvHeads" | "blockSize" | "headDim">,
  kvSlot: number,
  part: 0 | 1,
  kvHead: number,
): number {
  const block = Math.floor(kvSlot / blockSize);
  return (((block * 2 + part) * numKvHeads + kvHead) * blockSize + (kvSlot % blockSize)) * headDim;
}

function kvSlotOf(table: readonly number[], position: number, blockSize: number): number {
  return table[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
}

function tableBlocks({ blockSize }: Pick<Config, "blockSize">): number {
  return Math.ceil(MAX_CONTEXT / blockSize);
}

/** An f16 of 2^-5 to 2, in bits. */
function randomHalf(random: Random): number {
  return (random.integer(0, 1) << 15) | (random.integer(10, 15) << 10) | random.integer(0, 1023);
}

function config(
  headDim: number,
  numHeads: number,
  numKvHeads: number,
  kvCacheDtype: Config["kvCacheDtype"],
  blockSize: Config["blockSize"],
  pairing: Config["pairing"],
  hasHeadNorms: boolean,
): Config {
  const rotaryDims = headDim;
  return {
    headDim,
    numHeads,
    numKvHeads,
    kvCacheDtype,
    blockSize,
    pairing,
    hasHeadNorms,
    rotaryDims,
  };
}
