import { describe, expect, it } from "vitest";
import { PANEL_ROWS, step } from "../abi.ts";
import { QUANTIZE } from "../linearAbi.ts";
import {
  ACTIVATION_BYTES,
  type ActivationFormat,
  type ActivationSource,
  activationBytes,
  BYTE_SCALES,
  HALF_SHIFT,
  NIBBLE_SCALES,
  PAIR_ORDER,
  quantizeKernelName,
  tailWords,
} from "../matrixFormat.ts";
import { floatBits } from "../program.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import { randomNumbers } from "../testing/randomTensor.ts";
import { defineQuantizeKernels } from "./quantize.ts";

const KERNELS = defineQuantizeKernels("relaxed");
const FORMATS = Object.keys(ACTIVATION_BYTES) as ActivationFormat[];
const SOURCES: readonly ActivationSource[] = ["plain", "normed", "gated"];
const COLUMNS = 160;
const BLOCKS = COLUMNS / 32;
const INPUT_ROWS = 13;
const EPSILON = 1e-5;

interface Options {
  readonly segments?: number;
  readonly gather?: readonly number[];
  readonly threads?: number;
  /** Replaces the input, [INPUT_ROWS][2 * COLUMNS]. */
  readonly input?: (row: number, column: number) => number;
}

interface Result {
  readonly values: Float64Array; // [rows][COLUMNS]
  readonly steps: Float64Array; // [rows][BLOCKS]; 0 for floats
  readonly bytes: Uint8Array;
  readonly input: Float32Array; // [INPUT_ROWS][2 * COLUMNS]
  readonly gain: Float32Array;
}

async function quantize(
  source: ActivationSource,
  format: ActivationFormat,
  rows: number,
  { segments = 1, gather, threads = 1, input: inputOf }: Options = {},
): Promise<Result> {
  const kernel = quantizeKernelName(source, format);
  const harness = new KernelHarness(KERNELS.filter(({ name }) => name === kernel));
  const { arena, program } = harness;
  const input = arena.reserve("input", INPUT_ROWS * 2 * COLUMNS * 4);
  const gain = arena.reserve("gain", COLUMNS * 4);
  const byteLength = rows * activationBytes(format, COLUMNS);
  const records = arena.reserve("records", byteLength);
  const table = arena.reserve("table", rows * 16);
  const params = program.params(QUANTIZE, {
    input,
    inputStride: 2 * COLUMNS * 4,
    blocks: BLOCKS,
    gain,
    epsilon: floatBits(EPSILON),
    up: COLUMNS * 4,
    records,
    rows: gather ? step.LOGITS : step.ROWS,
    gather: gather ? table : 0,
    segments,
  });
  program.add({ kernel, params, items: () => rows * segments });
  await harness.bind();
  const random = randomNumbers(11);
  const x = harness.float32(input, INPUT_ROWS * 2 * COLUMNS);
  for (let i = 0; i < x.length; i++) {
    const row = Math.floor(i / (2 * COLUMNS));
    x[i] = inputOf?.(row, i % (2 * COLUMNS)) ?? (random() - 0.5) * 2 ** ((row % 8) - 2);
  }
  const gains = harness.float32(gain, COLUMNS);
  for (let i = 0; i < COLUMNS; i++) gains[i] = 0.5 + random();
  for (const [i, row] of (gather ?? []).entries()) harness.int32(table + 16 * i)[0] = row;
  harness.run(gather ? { rows: 1, logits: rows } : { rows }, threads);
  const bytes = harness.bytes(records, byteLength).slice();
  return { ...decode(format, bytes, rows), bytes, input: x.slice(), gain: gains.slice() };
}

/** Values and steps of records, as matrixFormat.ts describes them. */
function decode(format: ActivationFormat, bytes: Uint8Array, rows: number) {
  const view = new DataView(bytes.buffer);
  const { values: valueBytes, tail: tailBytes } = ACTIVATION_BYTES[format];
  const values = new Float64Array(rows * COLUMNS);
  const steps = new Float64Array(rows * BLOCKS);
  let at = 0;
  let first = 0;
  for (const size of PANEL_ROWS) {
    for (; rows - first >= size; first += size) {
      for (let block = 0; block < BLOCKS; block++) {
        for (let row = 0; row < size; row++) {
          const valuesAt = at + row * valueBytes;
          const tailAt = at + size * valueBytes + row * tailBytes;
          const { step: dx, numbers } = decodeBlock(format, view, valuesAt, tailAt);
          steps[(first + row) * BLOCKS + block] = dx;
          values.set(numbers, (first + row) * COLUMNS + block * 32);
        }
        at += size * (valueBytes + tailBytes);
      }
    }
  }
  expect(at).toBe(bytes.length);
  return { values, steps };
}

function decodeBlock(format: ActivationFormat, view: DataView, valuesAt: number, tailAt: number) {
  const float = (at: number): number => view.getFloat32(at, true);
  if (format === "int8" || format === "int16") {
    const dx = float(tailAt + tailWords.STEP);
    const integers = Array.from({ length: 32 }, (_, k) => {
      if (format === "int8") return view.getInt8(valuesAt + k);
      const place = k - (k % 4) + PAIR_ORDER.indexOf((k % 4) as 0);
      return view.getInt16(valuesAt + 2 * place, true);
    });
    const sum = integers.reduce((a, b) => a + b, 0);
    expect(float(tailAt + tailWords.SUM)).toBe(Math.fround(dx * sum));
    expect(float(tailAt + tailWords.HALF_STEP)).toBe(dx * HALF_SHIFT.STEP);
    expect(float(tailAt + tailWords.HALF_SUM)).toBe(Math.fround(dx * sum) * HALF_SHIFT.STEP);
    return { step: dx, numbers: integers.map((q) => q * dx) };
  }
  const numbers = Array.from({ length: 32 }, (_, k) => {
    const { low, high } = NIBBLE_SCALES;
    const nibbles = k < 16 ? low : high;
    const scales = { floats: [1, 1, 1, 1], bytes: BYTE_SCALES, nibbles }[format];
    return float(valuesAt + 4 * k) / scales[k % 4]!;
  });
  if (format !== "floats") {
    const sum = numbers.reduce((a, b) => a + b, 0);
    const absolute = numbers.reduce((a, b) => a + Math.abs(b), 0);
    expect(Math.abs(float(tailAt) - sum)).toBeLessThanOrEqual(3e-7 * absolute);
  }
  return { step: 0, numbers };
}

/** In float64. */
function reference(source: ActivationSource, { input, gain }: Result, row: number): Float64Array {
  const x = Float64Array.from(input.subarray(row * 2 * COLUMNS, row * 2 * COLUMNS + COLUMNS));
  const up = input.subarray(row * 2 * COLUMNS + COLUMNS, (row + 1) * 2 * COLUMNS);
  if (source === "plain") return x;
  if (source === "gated") return x.map((g, k) => (g / (1 + Math.exp(-g))) * up[k]!);
  const mean = x.reduce((sum, y) => sum + y * y, 0) / COLUMNS;
  return x.map((y, k) => (y / Math.sqrt(mean + EPSILON)) * gain[k]!);
}

/** f32 rounding of norm and silu, relative to the value. */
const TOLERANCE = 1e-6;

function expectClose(result: Result, source: ActivationSource, inputRows: readonly number[]): void {
  for (const [row, inputRow] of inputRows.entries()) {
    const wanted = reference(source, result, inputRow);
    for (const [k, y] of wanted.entries()) {
      const dx = result.steps[row * BLOCKS + (k >> 5)]!;
      const error = Math.abs(result.values[row * COLUMNS + k]! - y);
      expect(error).toBeLessThanOrEqual(dx * 0.5001 + TOLERANCE * Math.abs(y));
    }
  }
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe.each(SOURCES)("%s activations", (source) => {
  it.each(FORMATS)("are right as %s, in panels of every size", async (format) => {
    for (const rows of [1, 2, 3, 4, 8, 13]) {
      expectClose(await quantize(source, format, rows), source, range(rows));
    }
  });

  it.each(FORMATS)("have the same bits as %s in every number of pieces", async (format) => {
    const whole = await quantize(source, format, 7);
    for (const [segments, threads] of [
      [1, 3],
      [2, 1],
      [4, 2],
      [5, 5],
      [7, 1],
    ] as const) {
      const cut = await quantize(source, format, 7, { segments, threads });
      expect(cut.bytes).toEqual(whole.bytes);
    }
  });

  it("come from the rows of a table", async () => {
    const gather = [12, 0, 5];
    expectClose(await quantize(source, "floats", 3, { gather }), source, gather);
  });
});

describe("integers", () => {
  it.each(["int8", "int16"] as const)("of %s reach 127 and round ties to even", async (format) => {
    // With 254 as the largest, dx is 2 and odd numbers are ties.
    const input = (_: number, k: number): number => (k % 32 === 0 ? -254 : 2 * (k % 32) + 1);
    const { values, steps } = await quantize("plain", format, 1, { input });
    expect(steps[0]).toBe(2);
    expect([...values.subarray(0, 5)]).toEqual([-254, 4, 4, 8, 8]);
  });

  it.each(["int8", "int16"] as const)("of %s are 0 for a block of zeros", async (format) => {
    const input = (_: number, k: number): number => (k < 32 ? 0 : 1e-35);
    const { values, steps, bytes } = await quantize("plain", format, 2, { input });
    expect(values.every((x) => x === 0)).toBe(true);
    expect(steps.every((x) => x === 0)).toBe(true);
    expect(bytes.every((x) => x === 0)).toBe(true);
  });

  it("hold what is too large at the largest step", async () => {
    const input = (_: number, k: number): number => (k % 2 === 0 ? 3e38 : -3e38);
    const { steps, values } = await quantize("plain", "int8", 1, { input });
    expect(steps[0]).toBe(2 ** 34);
    expect(values[0]).toBe(127 * 2 ** 34);
    expect(values[1]).toBe(-128 * 2 ** 34);
  });
});

it("gates by numbers of any size", async () => {
  const gates = [-3e38, -1e4, -88, -1e-30, 0, 1e-30, 88, 1e4];
  const input = (_: number, k: number): number => (k < COLUMNS ? gates[k % 8]! : 1);
  const { values } = await quantize("gated", "floats", 1, { input });
  const found = [...values.subarray(1, 8)];
  const wanted = gates.slice(1).map((g) => g / (1 + Math.exp(-g)));
  for (const [i, y] of wanted.entries()) expect(found[i]).toBeCloseTo(y, 5);
  expect(values.every(Number.isFinite)).toBe(true);
});
