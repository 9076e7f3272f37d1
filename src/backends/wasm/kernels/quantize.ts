/**
 * @file Rows of f32 to the records that linear layers read. A writer a format takes the 32 values
 * of a block; a kernel a source makes them.
 */
import { PANEL_ROWS } from "../abi.ts";
import type { Simd } from "../kernelModule.ts";
import { QUANTIZE } from "../linearAbi.ts";
import {
  ACTIVATION_BYTES,
  ACTIVATION_MIN,
  type ActivationFormat,
  type ActivationSource,
  BLOCK_COLUMNS,
  BYTE_SCALES,
  HALF_SHIFT,
  NIBBLE_SCALES,
  PAIR_ORDER,
  quantizeKernelName,
  STEP_MAX,
  tailWords,
} from "../matrixFormat.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import {
  f32,
  f32x4,
  f32x4Const,
  f32x4Lanes,
  i8x16,
  i16x8,
  i16x8Const,
  i32,
  i32x4,
  v128,
} from "./instructions.ts";
import { exp, maxOfLanes, sumOfLanes, swapHalves, swapPairs } from "./math.ts";
import type { Int, Value, Variable, Vector } from "./value.ts";

const SOURCES: readonly ActivationSource[] = ["plain", "normed", "gated"];
/** Vectors of a block of f32. */
const BLOCK_VECTORS = BLOCK_COLUMNS / 4;

export function defineQuantizeKernels(simd: Simd): readonly Wasm[] {
  const formats = (Object.keys(ACTIVATION_BYTES) as ActivationFormat[]).filter(
    (format) => format !== "int8" || simd === "relaxed",
  );
  const writers = formats.map(defineWriter);
  const sources = { squares: defineSumOfSquares(), silu: defineSilu() };
  return SOURCES.flatMap((source) => {
    const quantize = defineQuantize(source, writers, sources);
    return formats.map((format, writer) => {
      const name = quantizeKernelName(source, format);
      const { values, tail } = ACTIVATION_BYTES[format];
      return define(name, ["i32", "i32", "i32", "i32"], (k, params, begin, end) => {
        k.call(quantize, params, begin, end, writer, values, tail);
        return undefined;
      });
    });
  });
}

/** (params, begin, end, writer, values, tail): the kernels of a source, all formats in one. */
function defineQuantize(
  source: ActivationSource,
  writers: readonly Wasm[],
  { squares, silu }: { readonly squares: Wasm; readonly silu: Wasm },
): Wasm {
  return define(
    `quantize_${source}`,
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    (k, params, begin, end, writer, values, tail) => {
      const param = (name: keyof typeof QUANTIZE): Value<"i32"> => i32.load(params, QUANTIZE[name]);
      const blocks = k.let(param("blocks"));
      const segments = k.let(param("segments"));
      const numRows = k.let(i32.load(param("rows")));
      const gather = k.let(param("gather"));
      const segmentBlocks = k.let(i32.div_u(i32.sub(i32.add(blocks, segments), 1), segments));
      const inverse = k.local("v128");
      k.for(begin, end, 1, (item) => {
        const row = k.let(i32.div_u(item, segments));
        const first = k.let(i32.mul(i32.rem_u(item, segments), segmentBlocks));
        const past = k.let(i32.add(first, segmentBlocks));
        k.if(i32.lt_u(blocks, past), () => k.set(past, blocks));

        const inputRow = k.let(row);
        k.if(gather, () => k.set(inputRow, i32.load(i32.add(gather, i32.shl(row, 4)))));
        const input = k.let(i32.add(param("input"), i32.mul(inputRow, param("inputStride"))));
        if (source === "normed") {
          k.set(inverse, f32x4.splat(inverseRms(k, squares, input, blocks, param("epsilon"))));
        }
        const other = k.let(source === "gated" ? i32.add(input, param("up")) : param("gain"));
        const firstByte = k.let(i32.mul(first, BLOCK_COLUMNS * 4));
        k.set(input, i32.add(input, firstByte));
        k.set(other, i32.add(other, firstByte));

        const panel = panelOf(k, row, numRows);
        const rowBytes = i32.mul(blocks, i32.add(values, tail));
        const record = k.let(i32.add(param("records"), i32.mul(panel.first, rowBytes)));
        const blockBytes = k.let(i32.mul(panel.rows, i32.add(values, tail)));
        k.set(record, i32.add(record, i32.mul(first, blockBytes)));
        const rowInPanel = k.let(i32.sub(row, panel.first));
        const tailsAt = k.let(i32.add(record, i32.mul(panel.rows, values)));
        k.set(record, i32.add(record, i32.mul(rowInPanel, values)));
        k.set(tailsAt, i32.add(tailsAt, i32.mul(rowInPanel, tail)));

        k.for(first, past, 1, () => {
          const xs = Array.from({ length: BLOCK_VECTORS }, (_, i): Vector => {
            const x = v128.load(input, 16 * i);
            if (source === "plain") return k.let(x);
            const y = v128.load(other, 16 * i);
            if (source === "gated") return k.let(f32x4.mul(k.callFor(silu, "v128", x), y));
            return k.let(f32x4.mul(f32x4.mul(x, inverse), y));
          });
          for (const [i, write] of writers.entries()) {
            k.if(i32.eq(writer, i), () => k.call(write, record, tailsAt, ...xs));
          }
          k.set(input, i32.add(input, BLOCK_COLUMNS * 4));
          k.set(other, i32.add(other, BLOCK_COLUMNS * 4));
          k.set(record, i32.add(record, blockBytes));
          k.set(tailsAt, i32.add(tailsAt, blockBytes));
        });
      });
      return undefined;
    },
  );
}

/** The panel that a row is in: how many rows it has, and its first. */
function panelOf(
  k: FunctionBody,
  row: Int,
  numRows: Int,
): { readonly rows: Variable<"i32">; readonly first: Variable<"i32"> } {
  const rows = k.local("i32");
  const first = k.local("i32");
  // There are several panels of the largest size, and at most one of each smaller size after them.
  for (const size of [...PANEL_ROWS].reverse()) {
    const set = (): void => {
      k.set(rows, i32.const(size));
      k.set(first, size === PANEL_ROWS[0] ? i32.and(row, -size) : i32.and(numRows, -2 * size));
    };
    k.if(i32.lt_u(row, i32.and(numRows, -size)), set);
  }
  return { rows, first };
}

/** x / (1 + e^-x) of each lane. */
function defineSilu(): Wasm {
  return define("silu", ["v128"], (k, x) =>
    f32x4.div(x, f32x4.add(f32x4Const(1), exp(k, f32x4.neg(x)))),
  );
}

// --- RMS norm ---

/** The sum of the squares of a row of `blocks` blocks, in one order. */
function defineSumOfSquares(): Wasm {
  return define("sumOfSquares", ["i32", "i32"], (k, input, blocks) => {
    const sums = Array.from({ length: 4 }, () => k.let(f32x4Const(0)));
    k.doWhile(
      () => {
        for (let i = 0; i < BLOCK_VECTORS; i++) {
          const x = k.let(v128.load(input, 16 * i));
          const sum = sums[i % sums.length]!;
          k.set(sum, f32x4.add(sum, f32x4.mul(x, x)));
        }
        k.set(input, i32.add(input, BLOCK_COLUMNS * 4));
        k.set(blocks, i32.sub(blocks, 1));
      },
      () => blocks,
    );
    const sum = sumOfLanes(k, addAll(sums, f32x4.add));
    return f32x4.extract_lane(sum, 0);
  });
}

/** 1 / sqrt(mean of the squares + epsilon) */
function inverseRms(k: FunctionBody, squares: Wasm, input: Int, blocks: Int, epsilon: Int) {
  const sum = k.callFor(squares, "f32", input, blocks);
  const mean = f32.div(sum, f32.convert_i32_s(i32.mul(blocks, BLOCK_COLUMNS)));
  const held = f32.add(mean, f32.reinterpret_i32(epsilon));
  return f32.div(f32.const(1), f32.sqrt(held));
}

// --- Writers ---

const WRITER_ARGS = [
  "i32",
  "i32",
  ...Array.from({ length: BLOCK_VECTORS }, () => "v128" as const),
] as const;

/** (values, tail, 8 vectors): writes a block of one row. */
function defineWriter(format: ActivationFormat): Wasm {
  return define(`write_${format}`, WRITER_ARGS, (k, values, tail, ...args) => {
    const xs = args as Variable<"v128">[];
    if (format === "int8" || format === "int16") writeIntegers(k, format, values, tail, xs);
    else writeFloats(k, format, values, tail, xs);
    return undefined;
  });
}

/** Adds up in pairs, so that the order is that of a tree. */
function addAll(xs: readonly Vector[], add: (a: Vector, b: Vector) => Vector): Vector {
  if (xs.length === 1) return xs[0]!;
  const half = xs.length / 2;
  return add(addAll(xs.slice(0, half), add), addAll(xs.slice(half), add));
}

function writeFloats(
  k: FunctionBody,
  format: "nibbles" | "bytes" | "floats",
  values: Int,
  tail: Int,
  xs: readonly Variable<"v128">[],
): void {
  for (const [i, x] of xs.entries()) v128.store(values, 16 * i, scaled(format, i, x));
  if (format === "floats") return;
  f32.store(tail, 0, f32x4.extract_lane(sumOfLanes(k, addAll(xs, f32x4.add)), 0));
}

/** Vector i of a block times the powers of two that undo where its weights lie in their words. */
function scaled(format: "nibbles" | "bytes" | "floats", i: number, x: Vector): Vector {
  if (format === "floats") return x;
  const { low, high } = NIBBLE_SCALES;
  const nibbles = i < BLOCK_VECTORS / 2 ? low : high;
  return f32x4.mul(x, f32x4Lanes(format === "bytes" ? BYTE_SCALES : nibbles));
}

/** Integers of at most 127: x / dx, to the nearest, ties to even; dx = max|x| / 127. */
function writeIntegers(
  k: FunctionBody,
  format: "int8" | "int16",
  values: Int,
  tail: Int,
  xs: readonly Variable<"v128">[],
): void {
  const largest = maxOfLanes(
    k,
    xs.map((x) => f32x4.abs(x)).reduce((max, x) => f32x4.pmax(max, x)),
  );
  const held = k.let(f32x4.pmin(largest, f32x4Const(127 * STEP_MAX)));
  const isSome = k.let(f32x4.gt(held, f32x4Const(ACTIVATION_MIN)));
  const step = k.let(v128.and(isSome, f32x4.div(held, f32x4Const(127))));
  const inverse = k.let(v128.and(isSome, f32x4.div(f32x4Const(127), held)));
  const words = xs.map((x) => k.let(i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(x, inverse)))));
  const narrowed = (i: number): Vector => i16x8.narrow_i32x4_s(words[i]!, words[i + 1]!);
  const bytes = [0, 4].map((i) => k.let(i8x16.narrow_i16x8_s(narrowed(i), narrowed(i + 2))));
  // From the bytes on: what was held at their range counts as such in the sum, too.
  const halves = bytes.flatMap((x) => [
    k.let(i16x8.extend_low_i8x16_s(x)),
    k.let(i16x8.extend_high_i8x16_s(x)),
  ]);
  if (format === "int8") {
    for (const [i, x] of bytes.entries()) v128.store(values, 16 * i, x);
  } else {
    const order = [...PAIR_ORDER, ...PAIR_ORDER.map((i) => 4 + i)];
    const places = order.flatMap((i) => [2 * i, 2 * i + 1]);
    for (const [i, x] of halves.entries()) {
      v128.store(values, 16 * i, i8x16.shuffle(x, x, places));
    }
  }
  const pairs = k.let(i32x4.dot_i16x8_s(addAll(halves, i16x8.add), i16x8Const(1)));
  k.set(pairs, i32x4.add(pairs, swapHalves(pairs)));
  k.set(pairs, i32x4.add(pairs, swapPairs(pairs)));
  const sum = k.let(f32x4.mul(f32x4.convert_i32x4_s(pairs), step));
  const shift = f32x4Const(HALF_SHIFT.STEP);
  f32.store(tail, tailWords.HALF_STEP, f32x4.extract_lane(f32x4.mul(step, shift), 0));
  f32.store(tail, tailWords.HALF_SUM, f32x4.extract_lane(f32x4.mul(sum, shift), 0));
  f32.store(tail, tailWords.STEP, f32x4.extract_lane(step, 0));
  f32.store(tail, tailWords.SUM, f32x4.extract_lane(sum, 0));
}
