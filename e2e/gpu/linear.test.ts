import { afterAll, describe, expect, test } from "vitest";
import { linear, silu } from "../../src/backends/reference/kernels.ts";
import { WEIGHT_FORMATS } from "../../src/backends/webgpu/format.ts";
import { LINEAR_TOKENS } from "../../src/backends/webgpu/kernelChoice.ts";
import { dequantizeRows } from "../../src/weights/dequantize.ts";
import { TENSOR_TYPES, type TensorType } from "../../src/weights/tensorType.ts";
import { Random, randomTensor } from "../fixtures/random.ts";
import { openDevice, testedIcd } from "./device.ts";
import {
  EPSILON,
  type LinearBatch,
  LinearHarness,
  type TestMatrix,
  UNTOUCHED,
} from "./linearHarness.ts";
import { rawBlocks } from "./rawBlocks.ts";

/** Half a unit in the last place of f32. */
const ROUNDING = 2 ** -24;

/**
 * Relative to sum |w x|. Weights are exact (see dequantize.ts), a lane adds 64 products a chunk, and each of
 * these sums, of the chunks and lanes after it, and of the norm rounds once: a bound, not a measurement.
 */
const SUM_TOLERANCE = 128 * ROUNDING;

/** Of silu: WGSL allows exp an error of 3 + 2 |x| units, and division 2.5; arguments stay below 30. */
const SILU_TOLERANCE = 140 * ROUNDING;

const TYPES = Object.keys(TENSOR_TYPES) as TensorType[];
const OUTPUTS = [1, 3, 4, 61, 64, 65, 130];
const COLUMNS = [32, 96, 288, 576];
const K_QUANT_COLUMNS = [256, 512];
const BATCHES: readonly LinearBatch[] = [0, 1, 2, 3, 4, 5, 8, 9, 17].map((rows) => ({ rows }));
const MAX_ROWS = 17;

/**
 * Kernels for many rows take lavapipe up to 3 s to compile: `npm test` runs them for these, one of each way to
 * read blocks and the default model's two; the other types there run with up to 4 rows.
 */
const MANY_ROWS_TYPES: readonly TensorType[] = ["Q4_1", "Q5_K", "Q6_K", "Q8_0", "F32"];
const FEW_ROWS: readonly LinearBatch[] = BATCHES.filter(({ rows }) => rows <= 4);

function batchesOf(type: TensorType): readonly LinearBatch[] {
  const isAll = process.env["QUIRE_TEST_ALL"] === "1";
  return isAll || MANY_ROWS_TYPES.includes(type) ? BATCHES : FEW_ROWS;
}

const device = await openDevice();
const harness = new LinearHarness(device, { family: "flat", linearTokens: LINEAR_TOKENS });
const sliced = new LinearHarness(device, { family: "workgroup", linearTokens: LINEAR_TOKENS });
/** What steps of many rows run beside those with slices. */
const unsliced = new LinearHarness(device, { family: "workgroup", linearTokens: [8] });
const errors: string[] = [];
device.addEventListener("uncapturederror", ({ error }) => errors.push(error.message));
afterAll(() => {
  device.destroy();
  expect(errors).toEqual([]);
});

describe(`linear layers on ${testedIcd}`, () => {
  test.each(TYPES)("%s: any bits, outputs, widths and rows agree with float64", async (type) => {
    const random = new Random(40 + TYPES.indexOf(type));
    const batches = batchesOf(type);
    let worst = 0;
    for (const columns of TENSOR_TYPES[type].blockSize === 256 ? K_QUANT_COLUMNS : COLUMNS) {
      for (const rows of OUTPUTS) {
        const matrix = { type, rows, columns, bytes: rawBlocks(random, type, rows, columns) };
        const { x, squares, scales } = normedInput(random, columns);
        // Columns on both sides of the outputs belong to other matrices.
        const output = { form: "store", stride: rows + 7, firstOutput: 3 } as const;
        const results = await harness.run([[matrix]], { x, squares }, output, batches);
        const wanted = products(matrix, x);
        for (const [i, { rows: count }] of batches.entries()) {
          const { y } = results[i]!;
          y.forEach((found, at) => {
            const row = Math.floor(at / output.stride);
            const n = (at % output.stride) - output.firstOutput;
            if (row >= count || n < 0 || n >= rows) {
              if (found !== UNTOUCHED) expect.fail(`Row ${row}, output ${n} was written.`);
              return;
            }
            const { sum, size } = wanted[row]![n]!;
            const error = Math.abs(found - sum * scales[row]!) / (size * scales[row]!);
            if (size > 0) worst = Math.max(worst, error);
            else if (found !== 0) expect.fail(`${found} came out of zeros.`);
          });
          expectSameBits(y, results.at(-1)!.y, count * output.stride);
        }
      }
    }
    expect(worst).toBeLessThan(SUM_TOLERANCE);
  });

  test.each(TYPES)("%s: windows and buffers of a matrix make no difference", async (type) => {
    const random = new Random(60);
    const columns = 256;
    const rows = 130;
    const stack = [64, 1, 65].map((part) => ({
      type,
      rows: part,
      columns,
      bytes: rawBlocks(random, type, part, columns),
    }));
    const { x, squares } = normedInput(random, columns);
    const output = { form: "store", stride: rows, firstOutput: 0 } as const;
    const batches = [{ rows: 1 }, batchesOf(type).at(-1)!];
    const whole = await harness.run([stack], { x, squares }, output, batches);
    const { quantWords, metaWords } = WEIGHT_FORMATS[type];
    const maxBindingBytes = 64 * (columns / 32) * Math.max(quantWords, metaWords) * 4;
    const limits = { maxBindingBytes, maxBufferBytes: maxBindingBytes };
    const split = await harness.run([stack], { x, squares }, output, batches, limits);
    for (const i of batches.keys()) expectSameBits(split[i]!.y, whole[i]!.y, Infinity);
    const wanted = stack.flatMap((part) => products(part, x)[0]!);
    expect(whole[0]!.y[129]).toBeCloseTo(wanted[129]!.sum * scalesOf(squares, columns)[0]!, 3);
  });

  // The other forms share what reads the weights with `store`: the default model's type stands for all.
  describe("Q4_1", () => {
    const type = "Q4_1";
    const widths = [32, 288, 576];

    test("gate: silu(gate) * up agrees with float64", async () => {
      const random = new Random(70);
      let worst = 0;
      for (const columns of widths) {
        for (const rows of [4, 64, 68, 132]) {
          const [gate, up] = [0, 1].map(() => normalMatrix(random, type, rows, columns, 4));
          const { x, squares, scales } = normedInput(random, columns);
          const output = { form: "gate", stride: rows, firstOutput: 0 } as const;
          const parts = [[gate!], [up!]];
          const results = await harness.run(parts, { x, squares }, output, BATCHES);
          const wantedGate = products(gate!, x);
          const wantedUp = products(up!, x);
          for (const [i, { rows: count }] of BATCHES.entries()) {
            results[i]!.y.forEach((found, at) => {
              const row = Math.floor(at / rows);
              if (row >= count) {
                mustBe(found, UNTOUCHED);
                return;
              }
              const scale = scales[row]!;
              const g = wantedGate[row]![at % rows]!;
              const u = wantedUp[row]![at % rows]!;
              const gated = silu(g.sum * scale);
              // silu's slope is below 1.1.
              const allowed =
                SUM_TOLERANCE *
                  scale *
                  (1.1 * g.size * Math.abs(u.sum * scale) + u.size * Math.abs(gated)) +
                SILU_TOLERANCE * Math.abs(gated * u.sum * scale);
              worst = Math.max(worst, Math.abs(found - gated * u.sum * scale) / allowed);
            });
            expectSameBits(results[i]!.y, results.at(-1)!.y, count * rows);
          }
          const { quantWords, metaWords } = WEIGHT_FORMATS[type];
          const bytes = 2 * 64 * (columns / 32) * Math.max(quantWords, metaWords) * 4;
          const limits = { maxBindingBytes: bytes, maxBufferBytes: bytes };
          const split = await harness.run(parts, { x, squares }, output, BATCHES, limits);
          for (const i of BATCHES.keys()) expectSameBits(split[i]!.y, results[i]!.y, Infinity);
        }
      }
      expect(worst).toBeLessThan(1);
    });

    test("add: the stream, its scaled copy and its squares agree with float64", async () => {
      const random = new Random(71);
      let worst = 0;
      for (const columns of widths) {
        for (const width of [32, 64, 160]) {
          const matrix = normalMatrix(random, type, width, columns, 1);
          const x = normals(random, MAX_ROWS * columns);
          const stream = normals(random, MAX_ROWS * width);
          const gain = normals(random, width);
          const output = { form: "add", stream, gain } as const;
          const results = await harness.run([[matrix]], { x }, output, BATCHES);
          const wanted = products(matrix, x);
          for (const [i, { rows: count }] of BATCHES.entries()) {
            const { y, scaled, squares } = results[i]!;
            y.forEach((found, at) => {
              const row = Math.floor(at / width);
              if (row >= count) {
                mustBe(found, stream[at]!);
                mustBe(scaled[at]!, UNTOUCHED);
                return;
              }
              const { sum, size } = wanted[row]![at % width]!;
              const allowed = SUM_TOLERANCE * (size + Math.abs(stream[at]!));
              worst = Math.max(worst, Math.abs(found - (stream[at]! + sum)) / allowed);
              mustBe(scaled[at]!, Math.fround(found * gain[at % width]!));
            });
            squares.forEach((found, group) => {
              if (4 * group >= count * width) {
                mustBe(found, UNTOUCHED);
                return;
              }
              let sum = 0;
              for (let i = 0; i < 4; i++) sum += y[4 * group + i]! ** 2;
              if (Math.abs(found - sum) > 4 * ROUNDING * sum) mustBe(found, sum);
            });
            for (const name of ["y", "scaled"] as const) {
              expectSameBits(results[i]![name], results.at(-1)![name], count * width);
            }
            expectSameBits(squares, results.at(-1)!.squares, (count * width) / 4);
          }
        }
      }
      expect(worst).toBeLessThan(1);
    });

    test("gather: only the sampled rows, in the samples' order", async () => {
      const random = new Random(72);
      const columns = 256;
      for (const rows of [61, 130]) {
        const matrix = normalMatrix(random, type, rows, columns, 1);
        const { x, squares, scales } = normedInput(random, columns);
        const output = { form: "store", stride: rows, firstOutput: 0 } as const;
        const gathers = [[], [16], [3, 0, 9], [16, 3, 4, 9, 0], [1, 2, 3, 5, 8, 9, 12, 13, 16]];
        const batches = gathers.map((gather) => ({ rows: MAX_ROWS, gather }));
        const results = await harness.run([[matrix]], { x, squares }, output, batches);
        const plain = await harness.run([[matrix]], { x, squares }, output, [{ rows: MAX_ROWS }]);
        const wanted = products(matrix, x);
        for (const [i, gather] of gathers.entries()) {
          const { y } = results[i]!;
          for (const [sample, row] of gather.entries()) {
            const own = y.subarray(sample * rows, (sample + 1) * rows);
            expectSameBits(own, plain[0]!.y.subarray(row * rows), rows);
            const error = Math.abs(own[60]! - wanted[row]![60]!.sum * scales[row]!);
            expect(error).toBeLessThan(SUM_TOLERANCE * wanted[row]![60]!.size * scales[row]!);
          }
          expect(y.subarray(gather.length * rows).every((found) => found === UNTOUCHED)).toBe(true);
        }
      }
    });
  });

  test("bias: added to normed outputs, one a row of the matrix", async () => {
    const random = new Random(73);
    let worst = 0;
    for (const [columns, rows] of [
      [32, 64],
      [288, 132],
    ] as const) {
      const matrix = normalMatrix(random, "Q4_1", rows, columns, 1);
      const { x, squares, scales } = normedInput(random, columns);
      const bias = normals(random, rows);
      const output = { form: "store", stride: rows, firstOutput: 0 } as const;
      const results = await harness.run([[matrix]], { x, squares, bias }, output, FEW_ROWS);
      const weights = dequantizeRows("Q4_1", matrix.bytes, columns, rows);
      const sizes = products(matrix, x);
      for (const [i, { rows: count }] of FEW_ROWS.entries()) {
        for (let row = 0; row < count; row++) {
          const normed = Float64Array.from(
            x.subarray(row * columns, (row + 1) * columns),
            (value) => value * scales[row]!,
          );
          linear(weights, normed, bias).forEach((wanted, n) => {
            const allowed =
              SUM_TOLERANCE * (sizes[row]![n]!.size * scales[row]! + Math.abs(bias[n]!));
            worst = Math.max(worst, Math.abs(results[i]!.y[row * rows + n]! - wanted) / allowed);
          });
        }
        expectSameBits(results[i]!.y, results.at(-1)!.y, count * rows);
      }
    }
    expect(worst).toBeLessThan(1);
  });
});

describe(`linear layers whose K a workgroup shares, on ${testedIcd}`, () => {
  /** Two, four and eight slices of K; the last chunk is whole, or a part. */
  const widths = [288, 576, 1568, 2304];

  test("give the bits of one thread, and with a norm those of one in its place", async () => {
    const random = new Random(80);
    let worst = 0;
    for (const columns of widths) {
      for (const rows of [3, 64, 130]) {
        const matrix = normalMatrix(random, "Q4_1", rows, columns, 1);
        const { x, squares, scales } = normedInput(random, columns);
        const output = { form: "store", stride: rows + 7, firstOutput: 3 } as const;
        const alone = await harness.run([[matrix]], { x }, output, BATCHES);
        const shared = await sliced.run([[matrix]], { x }, output, BATCHES);
        for (const i of BATCHES.keys()) expectSameBits(shared[i]!.y, alone[i]!.y, Infinity);

        const normed = await sliced.run([[matrix]], { x, squares }, output, BATCHES);
        const wanted = products(matrix, x);
        for (const [i, { rows: count }] of BATCHES.entries()) {
          normed[i]!.y.forEach((found, at) => {
            const row = Math.floor(at / output.stride);
            const n = (at % output.stride) - output.firstOutput;
            if (row >= count || n < 0 || n >= rows) {
              mustBe(found, UNTOUCHED);
              return;
            }
            const { sum, size } = wanted[row]![n]!;
            const error = Math.abs(found - sum * scales[row]!) / (size * scales[row]!);
            worst = Math.max(worst, error);
          });
          expectSameBits(normed[i]!.y, normed.at(-1)!.y, count * output.stride);
        }
        const many = await unsliced.run([[matrix]], { x, squares }, output, BATCHES);
        for (const i of BATCHES.keys()) expectSameBits(many[i]!.y, normed[i]!.y, Infinity);
      }
    }
    expect(worst).toBeLessThan(SUM_TOLERANCE);
  });

  test("do so in every form", async () => {
    const random = new Random(81);
    for (const columns of [widths.at(-1)!]) {
      const width = 64;
      const [gate, up] = [0, 1].map(() => normalMatrix(random, "Q4_1", width, columns, 4));
      const x = normals(random, MAX_ROWS * columns);
      const stream = normals(random, MAX_ROWS * width);
      const forms = [
        { parts: [[gate!], [up!]], output: { form: "gate", stride: width, firstOutput: 0 } },
        { parts: [[gate!]], output: { form: "add", stream, gain: normals(random, width) } },
      ] as const;
      for (const { parts, output } of forms) {
        const alone = await harness.run(parts, { x }, output, BATCHES);
        const shared = await sliced.run(parts, { x }, output, BATCHES);
        for (const i of BATCHES.keys()) {
          for (const name of ["y", "scaled", "squares"] as const) {
            expectSameBits(shared[i]![name], alone[i]![name], Infinity);
          }
        }
      }
      const bias = normals(random, width);
      const { squares } = normedInput(random, columns);
      const store = { form: "store", stride: width, firstOutput: 0 } as const;
      const inputs = { x, squares, bias };
      const gather = [16, 3, 4, 9, 0];
      const all = await sliced.run([[gate!]], inputs, store, [{ rows: MAX_ROWS }]);
      const some = await sliced.run([[gate!]], inputs, store, [{ rows: MAX_ROWS, gather }]);
      for (const [sample, row] of gather.entries()) {
        const own = some[0]!.y.subarray(sample * width, (sample + 1) * width);
        expectSameBits(own, all[0]!.y.subarray(row * width), width);
      }
    }
  });
});

// expect() itself would take most of the tests' time.
function mustBe(found: number, wanted: number): void {
  if (!Object.is(found, wanted)) expect.fail(`Found ${found} instead of ${wanted}.`);
}

function normals(random: Random, length: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, () => random.normal());
}

/** Weights so large that outputs have about the given deviation. */
function normalMatrix(
  random: Random,
  type: TensorType,
  rows: number,
  columns: number,
  deviation: number,
): TestMatrix {
  const bytes = randomTensor(random, type, rows, columns, deviation / Math.sqrt(columns));
  return { type, rows, columns, bytes };
}

/** Rows of a stream as its producer leaves them, and 1 / rms of each. */
function normedInput(random: Random, columns: number) {
  const x = normals(random, MAX_ROWS * columns);
  const squares = normals(random, (MAX_ROWS * columns) / 4).map((value) => value * value * 4);
  return { x, squares, scales: scalesOf(squares, columns) };
}

function scalesOf(squares: Float32Array, columns: number): readonly number[] {
  return Array.from({ length: MAX_ROWS }, (_, row) => {
    const own = squares.subarray((row * columns) / 4, ((row + 1) * columns) / 4);
    let sum = 0;
    for (const square of own) sum += square;
    return 1 / Math.sqrt(sum / columns + EPSILON);
  });
}

/** W x in float64, and sum |w x| with it; [rows of x][rows of W]. */
function products({ type, rows, columns, bytes }: TestMatrix, x: Float32Array) {
  const weights = dequantizeRows(type, bytes, columns, rows);
  const sizes = weights.map(Math.abs);
  return Array.from({ length: MAX_ROWS }, (_, row) => {
    const own = Float64Array.from(x.subarray(row * columns, (row + 1) * columns));
    const sums = linear(weights, own);
    return Array.from(linear(sizes, own.map(Math.abs)), (size, n) => ({ sum: sums[n]!, size }));
  });
}

/** The first `length` values are the same bits, so that -0 is not 0 and a NaN equals itself. */
function expectSameBits(found: Float32Array, wanted: Float32Array, length: number): void {
  const bits = (values: Float32Array) =>
    new Uint32Array(values.buffer, values.byteOffset, Math.min(length, values.length));
  const other = bits(wanted);
  const at = bits(found).findIndex((word, i) => word !== other[i]);
  if (at >= 0) expect.fail(`Value ${at} is ${found[at]}, and ${wanted[at]} in another batch.`);
}
