import { describe, expect, it } from "vitest";
import { dequantizeRows } from "../../../weights/dequantize.ts";
import { rowByteLength, TENSOR_TYPES, type TensorType } from "../../../weights/tensorType.ts";
import { step } from "../abi.ts";
import type { Simd } from "../kernelModule.ts";
import { LINEAR, QUANTIZE } from "../linearAbi.ts";
import {
  activationBytes,
  activationFormat,
  FORMAT_OF,
  linearKernelName,
  MATRIX_LAYOUTS,
  type Precision,
  quantizeKernelName,
} from "../matrixFormat.ts";
import { layOutMatrix, type PackedMatrix, packRows } from "../packedMatrix.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import { type RandomTensor, randomNumbers, randomTensor } from "../testing/randomTensor.ts";
import { defineLinearKernels } from "./linear.ts";

const ALL_ROWS = 16;
const ROW_COUNTS = [1, 2, 3, 4, 5, 8, 13];
const THREADS = [2, 3, 4, 5];
const TYPES = Object.keys(TENSOR_TYPES) as TensorType[];
const PRECISIONS: readonly Precision[] = ["fast", "exact"];

const KERNELS = { relaxed: defineLinearKernels("relaxed"), plain: defineLinearKernels("plain") };

/** Relative to the sum of |largest weight of the block * activation|: f32 sums over up to 24 blocks. */
const TOLERANCE = 2e-7;

/** What the outputs hold that are added to. */
const OLD = Float32Array.from({ length: ALL_ROWS * 200 }, (_, i) => ((i * 37) % 101) / 101 - 0.5);

/** A matrix of tensors with these rows. */
interface Shape {
  readonly rows: readonly number[];
  readonly columns: number;
}

function shapesOf(type: TensorType): readonly Shape[] {
  const isSuper = TENSOR_TYPES[type].blockSize === 256;
  const [small, middle, large] = isSuper ? [256, 512, 768] : [32, 96, 576];
  return [
    { rows: [1], columns: large! },
    { rows: [7], columns: small! },
    { rows: [8], columns: middle! },
    { rows: [5, 3, 2], columns: small! },
    { rows: [100, 93], columns: large! },
  ];
}

interface Case {
  readonly tensors: readonly RandomTensor[];
  readonly matrix: PackedMatrix;
  readonly precision: Precision;
  readonly weights: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly added: number;
  readonly bias: number;
  readonly biases: Float32Array;
}

/** Every shape of a type in both precisions, as one program: quantise, y = W x, y = W x + b + old. */
class LinearWorld {
  readonly harness: KernelHarness;
  readonly cases: readonly Case[];

  private constructor(harness: KernelHarness, cases: readonly Case[]) {
    this.harness = harness;
    this.cases = cases;
  }

  static async create(type: TensorType, simd: Simd): Promise<LinearWorld> {
    const format = FORMAT_OF[type];
    const names = PRECISIONS.flatMap((precision) => [
      linearKernelName(format, precision),
      quantizeKernelName("plain", activationFormat(format, precision, simd)),
    ]);
    const harness = new KernelHarness(KERNELS[simd].filter(({ name }) => names.includes(name)));
    const cases = shapesOf(type).flatMap(({ rows, columns }, i) => {
      const tensors = rows.map((n, j) => randomTensor(`t${j}`, type, n, columns, 100 * i + j + 1));
      return PRECISIONS.map((precision) => addCase(harness, tensors, precision, simd));
    });
    await harness.bind();
    for (const found of cases) fillCase(harness, found);
    return new LinearWorld(harness, cases);
  }

  /** The results of all cases; `rows` rows were computed, the others hold 7. */
  run(rows: number, threads = 1): readonly Float32Array[] {
    const { harness, cases } = this;
    for (const { outputs, added, matrix } of cases) {
      harness.float32(outputs, ALL_ROWS * matrix.paddedRows).fill(7);
      const old = harness.float32(added, ALL_ROWS * matrix.paddedRows);
      old.set(OLD.subarray(0, old.length));
    }
    harness.run({ rows }, threads);
    return cases.map(({ outputs, added, matrix }) => {
      const both = new Float32Array(2 * rows * matrix.paddedRows);
      both.set(harness.float32(outputs, rows * matrix.paddedRows));
      both.set(harness.float32(added, rows * matrix.paddedRows), rows * matrix.paddedRows);
      const rest = harness.float32(outputs, ALL_ROWS * matrix.paddedRows);
      expect(rest.subarray(rows * matrix.paddedRows).every((y) => y === 7)).toBe(true);
      return both;
    });
  }
}

function addCase(
  { arena, program }: KernelHarness,
  tensors: readonly RandomTensor[],
  precision: Precision,
  simd: Simd,
): Case {
  const matrix = layOutMatrix(tensors);
  const format = activationFormat(matrix.format, precision, simd);
  const { columns, paddedRows, tiles } = matrix;
  const floats = (name: string, count: number): number => arena.reserve(name, count * 4);
  const weights = arena.reserve("weights", matrix.byteLength);
  const inputs = floats("inputs", ALL_ROWS * columns);
  const outputs = floats("outputs", ALL_ROWS * paddedRows);
  const added = floats("added", ALL_ROWS * paddedRows);
  const bias = floats("bias", paddedRows);
  const records = arena.reserve("records", ALL_ROWS * activationBytes(format, columns));
  const quantize = program.params(QUANTIZE, {
    input: inputs,
    inputStride: columns * 4,
    blocks: columns / 32,
    gain: 0,
    epsilon: 0,
    up: 0,
    records,
    rows: step.ROWS,
    gather: 0,
    segments: 1,
  });
  program.add({
    kernel: quantizeKernelName("plain", format),
    params: quantize,
    items: ({ rows }) => rows,
  });
  for (const output of [outputs, added]) {
    const params = program.params(LINEAR, {
      weights,
      blocks: columns / 32,
      records,
      output,
      outputStride: paddedRows * 4,
      bias: output === added ? bias : 0,
      add: output === added ? 1 : 0,
      rows: step.ROWS,
    });
    const kernel = linearKernelName(matrix.format, precision);
    program.add({ kernel, params, items: () => tiles });
  }
  const random = randomNumbers(paddedRows);
  const biases = Float32Array.from({ length: paddedRows }, () => random() - 0.5);
  return { tensors, matrix, precision, weights, inputs, outputs, added, bias, biases };
}

function fillCase(harness: KernelHarness, found: Case): void {
  const { tensors, matrix, weights, inputs, bias, biases } = found;
  const target = harness.bytes(weights, matrix.byteLength);
  for (const tensor of tensors) {
    // In two pieces, the second one first.
    const cut = tensor.rows >> 1;
    const at = cut * rowByteLength(tensor);
    packRows(matrix, target, tensor, cut, tensor.bytes.subarray(at));
    if (cut > 0) packRows(matrix, target, tensor, 0, tensor.bytes.subarray(0, at));
  }
  const random = randomNumbers(3);
  const x = harness.float32(inputs, ALL_ROWS * matrix.columns);
  for (let i = 0; i < x.length; i++) {
    const row = Math.floor(i / matrix.columns);
    x[i] = (random() - 0.5) * 2 ** (row - 8);
  }
  x.subarray(2 * matrix.columns, 3 * matrix.columns).fill(0);
  x.subarray(3 * matrix.columns, 3 * matrix.columns + 32).fill(0);
  harness.float32(bias, matrix.paddedRows).set(biases);
}

/** Largest error of a case's plain results, relative to the sum of absolute terms. */
function errorOf(harness: KernelHarness, found: Case, results: Float32Array): number {
  const { tensors, matrix, precision, inputs } = found;
  const { columns, rows, paddedRows, format } = matrix;
  const rowsOf = ({ type, bytes, rows: n }: RandomTensor) =>
    dequantizeRows(type, bytes, columns, n);
  const weights = tensors.map(rowsOf);
  const W = new Float32Array(rows * columns);
  let at = 0;
  for (const part of weights) {
    W.set(part, at);
    at += part.length;
  }
  const isInteger = precision === "fast" && MATRIX_LAYOUTS[format].quantBits <= 8;
  let worst = 0;
  for (let row = 0; row < ALL_ROWS; row++) {
    const given = harness.float32(inputs + row * columns * 4, columns);
    const x = isInteger ? asIntegers(given) : Float64Array.from(given);
    for (let n = 0; n < rows; n++) {
      let sum = 0;
      let scale = 1e-30;
      for (let block = 0; block < columns; block += 32) {
        let largest = 0;
        let activations = 0;
        for (let k = block; k < block + 32; k++) {
          const w = W[n * columns + k]!;
          sum += w * x[k]!;
          largest = Math.max(largest, Math.abs(w));
          activations += Math.abs(x[k]!);
        }
        scale += largest * activations;
      }
      worst = Math.max(worst, Math.abs(results[row * paddedRows + n]! - sum) / scale);
    }
  }
  return worst;
}

/** The activations that the integers stand for. */
function asIntegers(x: Float32Array): Float64Array {
  return Float64Array.from(x, (value, k) => {
    const block = x.subarray(k - (k % 32), k - (k % 32) + 32);
    const largest = block.reduce((max, y) => Math.max(max, Math.abs(y)), 0);
    if (largest === 0) return 0;
    const scaled = Math.fround(value * Math.fround(127 / largest));
    const down = Math.floor(scaled);
    const isOdd = down % 2 !== 0;
    const up = scaled - down > 0.5 || (scaled - down === 0.5 && isOdd);
    return (up ? down + 1 : down) * Math.fround(largest / 127);
  });
}

describe.each(TYPES)("linear layers of %s", (type) => {
  it("are right, and the same bits in every company and with plain SIMD", async () => {
    const world = await LinearWorld.create(type, "relaxed");
    const expected = world.run(ALL_ROWS);
    for (const [i, found] of world.cases.entries()) {
      const label = `${found.precision} ${found.matrix.rows} x ${found.matrix.columns}`;
      expect(errorOf(world.harness, found, expected[i]!), label).toBeLessThan(TOLERANCE);
      checkAdded(found, expected[i]!);
    }
    for (const rows of ROW_COUNTS) expectFirstRows(world, world.run(rows), expected, rows);
    for (const threads of THREADS) {
      expectFirstRows(world, world.run(1, threads), expected, 1);
      expectFirstRows(world, world.run(ALL_ROWS, threads), expected, ALL_ROWS);
    }
    const plain = await LinearWorld.create(type, "plain");
    for (const rows of [1, 5, ALL_ROWS]) expectFirstRows(plain, plain.run(rows), expected, rows);
  });
});

describe.each(["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"] as const)("fast layers of %s", (type) => {
  it("take activations of 2^40", async () => {
    const world = await LinearWorld.create(type, "relaxed");
    for (const { inputs, matrix } of world.cases) {
      const x = world.harness.float32(inputs, ALL_ROWS * matrix.columns);
      const largest = x.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
      for (const [i, value] of x.entries()) x[i] = (value / largest) * 2 ** 40;
    }
    const results = world.run(ALL_ROWS);
    for (const [i, found] of world.cases.entries()) {
      expect(errorOf(world.harness, found, results[i]!)).toBeLessThan(TOLERANCE);
    }
  });

  it("hold larger ones and give finite numbers", async () => {
    const world = await LinearWorld.create(type, "relaxed");
    for (const { inputs, matrix } of world.cases) {
      const x = world.harness.float32(inputs, ALL_ROWS * matrix.columns);
      for (const [i, value] of x.entries()) x[i] = Math.sign(value) * (i % 3 === 0 ? 3e38 : 1e20);
    }
    const results = world.run(ALL_ROWS);
    for (const [i, { precision }] of world.cases.entries()) {
      if (precision === "fast") expect(results[i]!.every(Number.isFinite)).toBe(true);
    }
  });
});

/** (y + bias) + old, each sum rounded. */
function checkAdded({ matrix, biases }: Case, results: Float32Array): void {
  const { paddedRows } = matrix;
  const count = ALL_ROWS * paddedRows;
  const wanted = Float32Array.from({ length: count }, (_, i) =>
    Math.fround(Math.fround(results[i]! + biases[i % paddedRows]!) + OLD[i]!),
  );
  expect(results.subarray(count)).toEqual(wanted);
}

/** Compares bits: -0 is not 0. */
function expectFirstRows(
  { cases }: LinearWorld,
  found: readonly Float32Array[],
  expected: readonly Float32Array[],
  rows: number,
): void {
  for (const [i, { matrix, precision }] of cases.entries()) {
    const half = ALL_ROWS * matrix.paddedRows;
    const count = rows * matrix.paddedRows;
    const all = expected[i]!;
    const wanted = [...bitsOf(all.subarray(0, count)), ...bitsOf(all.subarray(half, half + count))];
    const bits = bitsOf(found[i]!);
    const isSame = wanted.every((word, j) => word === bits[j]);
    expect(isSame, `${precision} ${matrix.rows} x ${matrix.columns}, ${rows} rows`).toBe(true);
  }
}

function bitsOf(floats: Float32Array): Uint32Array {
  return new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
}
