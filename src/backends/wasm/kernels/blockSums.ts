/**
 * @file The inner loop of linear layers: one block of 32 weights of some vectors of 4 output rows,
 * times one block of activations of some rows, onto their totals.
 *
 * A family of formats says how to get a column of weights, how to multiply it and how to add up.
 * Code is unrolled over rows and vectors, and over as much of the block as pays.
 */
import { TILE_ROWS } from "../abi.ts";
import type { Simd } from "../kernelModule.ts";
import {
  ACTIVATION_BYTES,
  activationFormat,
  BLOCK_COLUMNS,
  blockOffsets,
  HALF_SHIFT,
  MATRIX_LAYOUTS,
  type MatrixFormat,
  type Precision,
  tailWords,
  VECTOR_ROWS,
} from "../matrixFormat.ts";
import {
  type FunctionBody,
  f32x4,
  f32x4Const,
  type Int,
  i16x8,
  i16x8Const,
  i32,
  i32x4,
  i32x4Const,
  type Variable,
  type Vector,
  v128,
} from "./emit.ts";

/** What is multiplied where. */
export interface BlockContext {
  readonly k: FunctionBody;
  readonly format: MatrixFormat;
  readonly precision: Precision;
  readonly simd: Simd;
  /** Rows of activations, and vectors of 4 output rows. */
  readonly rows: number;
  readonly vectors: number;
  /** Address of the first vector's quants in the block. */
  readonly quants: Variable<"i32">;
  /** Address of the first vector's scales in the block. */
  readonly scales: Variable<"i32">;
  /** Addresses of the first row's activations of the block: their values, and their tail. */
  readonly activations: Variable<"i32">;
  readonly tails: Variable<"i32">;
}

/** One vector for each row and output vector: [row][vector]. */
export type Sums = readonly (readonly Variable<"v128">[])[];

/** Weights of one or more neighbours along K for each row of a vector, as the family multiplies them. */
interface Column {
  readonly weights: (vector: number) => Vector;
  /** Byte offset of the activations that they meet. */
  readonly activation: number;
}

interface Family {
  /** Steps of a block, and how far quants and activations lie apart in them, in bytes. */
  readonly steps: number;
  readonly quantBytes: number;
  readonly activationBytes: number;
  /** Columns of a step: how many, and code for each in turn. */
  readonly numColumns: number;
  readonly columns: (quants: Int, offset: number) => Iterable<Column>;
  /** Products that a loop's body has at most, where steps are small enough. */
  readonly unrolled: number;
  readonly multiply: (weights: Vector, activations: Vector) => Vector;
  readonly add: (a: Vector, b: Vector) => Vector;
  readonly toFloat: (sum: Vector) => Vector;
}

/** The code that adds a block to the totals. It sets its constants here: call it before the loop. */
export function blockAdder(context: BlockContext): (totals: Sums) => void {
  const { k, format, quants, activations, scales } = context;
  const { quantBits, scaleBytes, scales: parts, hasMinimum } = MATRIX_LAYOUTS[format];
  const family = familyOf(context);
  const multiply = multiplier(context, family);
  if (quantBits > 8) {
    return (totals) => {
      const sums = multiply(k.let(quants), k.let(activations), family.steps);
      each(context, (row, vector) => addTo(k, totals[row]![vector]!, sums[row]![vector]!));
    };
  }
  const scaling = scaler(context);
  const scaleAt = k.local("i32");
  return (totals) => {
    const quantAt = k.let(quants);
    const activationAt = k.let(activations);
    k.set(scaleAt, scales);
    // Each scale has its part of the block.
    repeat(k, parts, () => {
      const sums = multiply(quantAt, activationAt, family.steps / parts);
      scaling.addScaled(totals, scaleAt, (row, vector) => family.toFloat(sums[row]![vector]!));
      if (hasMinimum || parts > 1) k.set(scaleAt, i32.add(scaleAt, TILE_ROWS * scaleBytes));
    });
    if (hasMinimum) scaling.addMinima(totals, scaleAt);
  };
}

function each({ rows, vectors }: BlockContext, body: (row: number, vector: number) => void): void {
  for (let row = 0; row < rows; row++) {
    for (let vector = 0; vector < vectors; vector++) body(row, vector);
  }
}

/** Code that runs the body's code `count` times. */
export function repeat(k: FunctionBody, count: number, body: () => void): void {
  if (count === 1) {
    body();
    return;
  }
  const left = k.let(i32.const(count));
  k.doWhile(
    () => {
      body();
      k.set(left, i32.sub(left, 1));
    },
    () => left,
  );
}

function addTo(k: FunctionBody, total: Variable<"v128">, x: Vector): void {
  k.set(total, f32x4.add(total, x));
}

/** A value that is used `uses` times: through the local where that is more than once. */
function shared(k: FunctionBody, local: Variable<"v128">, value: Vector, uses: number): Vector {
  if (uses === 1) return value;
  k.set(local, value);
  return local;
}

// --- Products ---

/** Code for the sums of `steps` steps, starting at addresses that it moves on. */
function multiplier(
  context: BlockContext,
  family: Family,
): (quants: Variable<"i32">, activations: Variable<"i32">, steps: number) => Sums {
  const { k, rows, vectors } = context;
  const locals = (count: number) => Array.from({ length: count }, () => k.local("v128"));
  const sums = Array.from({ length: rows }, () => locals(vectors));
  const weightLocals = locals(vectors);
  const activationLocal = k.local("v128");
  const zero = k.let(i32x4Const(0));
  const { values } = ACTIVATION_BYTES[formatOfActivations(context)];
  return (quants, activations, steps) => {
    const productsAStep = family.numColumns * rows * vectors;
    let unrolled = steps;
    while (unrolled > 1 && unrolled * productsAStep > family.unrolled) unrolled /= 2;
    const isLoop = unrolled < steps;
    if (isLoop) each(context, (row, vector) => k.set(sums[row]![vector]!, zero));
    repeat(k, steps / unrolled, () => {
      let isFirst = !isLoop;
      for (let i = 0; i < unrolled; i++) {
        for (const column of family.columns(quants, i * family.quantBytes)) {
          const weights = weightLocals.map((local, vector) =>
            shared(k, local, column.weights(vector), rows),
          );
          for (let row = 0; row < rows; row++) {
            const offset = row * values + i * family.activationBytes + column.activation;
            const load = v128.load32_splat(activations, offset);
            const x = shared(k, activationLocal, load, vectors);
            for (const [vector, sum] of sums[row]!.entries()) {
              const product = family.multiply(weights[vector]!, x);
              k.set(sum, isFirst ? product : family.add(sum, product));
            }
          }
          isFirst = false;
        }
      }
      k.set(quants, i32.add(quants, unrolled * family.quantBytes));
      k.set(activations, i32.add(activations, unrolled * family.activationBytes));
    });
    return sums;
  };
}

function formatOfActivations({ format, precision, simd }: BlockContext) {
  return activationFormat(format, precision, simd);
}

// --- Families ---

function familyOf(context: BlockContext): Family {
  const { format, precision, simd } = context;
  const { quantBits } = MATRIX_LAYOUTS[format];
  if (quantBits > 8) return floats(context);
  if (precision === "exact") return quantBits === 4 ? exactNibbles(context) : exactBytes(context);
  if (quantBits === 8) return bytes(context);
  return simd === "relaxed" ? relaxedNibbles(context) : nibbles(context);
}

const FLOAT_ARITHMETIC = {
  multiply: f32x4.mul,
  add: f32x4.add,
  toFloat: (sum: Vector) => sum,
};

/** Integers in pairs of 16 bits. Sums are exact. */
const PAIR_ARITHMETIC = {
  multiply: i32x4.dot_i16x8_s,
  add: i32x4.add,
  toFloat: f32x4.convert_i32x4_s,
};

/** Loads something of each vector into locals that all steps share. */
function loader(
  { k, vectors, format }: BlockContext,
  load: (address: Int, offset: number) => Vector,
): (quants: Int, offset: number) => readonly Variable<"v128">[] {
  const { vectorBytes } = blockOffsets(format);
  const locals = Array.from({ length: vectors }, () => k.local("v128"));
  return (quants, offset) => {
    for (const [vector, local] of locals.entries()) {
      k.set(local, load(quants, offset + vector * vectorBytes));
    }
    return locals;
  };
}

/**
 * Nibbles times bytes. The sums of a block fit 16 bits: each lane gets 16 products of at most
 * 15 * 128, 30,720 in all.
 */
function relaxedNibbles(context: BlockContext): Family {
  const { k } = context;
  const loadWords = loader(context, v128.load);
  const mask = k.let(i32x4Const(0x0f0f0f0f));
  const ones = k.let(i16x8Const(1));
  return {
    numColumns: 2,
    unrolled: 64,
    steps: 4,
    quantBytes: 16,
    activationBytes: 4,
    *columns(quants, offset) {
      const words = loadWords(quants, offset);
      yield { activation: 0, weights: (vector) => v128.and(words[vector]!, mask) };
      yield {
        activation: 16,
        weights: (vector) => v128.and(i16x8.shr_u(words[vector]!, 4), mask),
      };
    },
    multiply: (weights, four) => i16x8.relaxed_dot_i8x16_i7x16_s(four, weights),
    add: i16x8.add,
    toFloat: (sum) => f32x4.convert_i32x4_s(i32x4.dot_i16x8_s(sum, ones)),
  };
}

/** Nibbles, masked out as 16-bit pairs, times 16-bit activations. */
function nibbles(context: BlockContext): Family {
  const { k } = context;
  const loadWords = loader(context, v128.load);
  const mask = k.let(i16x8Const(15));
  return {
    numColumns: 4,
    unrolled: 16,
    steps: 4,
    quantBytes: 16,
    activationBytes: 8,
    *columns(quants, offset) {
      const words = loadWords(quants, offset);
      // Odd nibbles are the weights from 16 on; those of the upper byte are the second pair of four.
      const nibbleOf = (nibble: number) => (vector: number) => {
        const word = words[vector]!;
        const shifted = nibble === 0 ? word : i16x8.shr_u(word, 4 * nibble);
        return nibble === 3 ? shifted : v128.and(shifted, mask);
      };
      yield { activation: 0, weights: nibbleOf(0) };
      yield { activation: 32, weights: nibbleOf(1) };
      yield { activation: 4, weights: nibbleOf(2) };
      yield { activation: 36, weights: nibbleOf(3) };
    },
    ...PAIR_ARITHMETIC,
  };
}

/** Bytes, widened to 16-bit pairs, times 16-bit activations. */
function bytes({ format }: BlockContext): Family {
  const { vectorBytes } = blockOffsets(format);
  return {
    numColumns: 1,
    unrolled: 64,
    steps: BLOCK_COLUMNS / 2,
    quantBytes: 8,
    activationBytes: 4,
    columns: (quants, offset) => [
      {
        activation: 0,
        weights: (vector) => v128.load8x8_s(quants, offset + vector * vectorBytes),
      },
    ],
    ...PAIR_ARITHMETIC,
  };
}

/** Nibbles where they lie in their words, as f32, times f32 that make up for it. */
function exactNibbles(context: BlockContext): Family {
  const { k } = context;
  const loadWords = loader(context, v128.load);
  const masks = Array.from({ length: 7 }, (_, nibble) => k.let(i32x4Const(15 << (4 * nibble))));
  return {
    numColumns: 8,
    unrolled: 16,
    steps: 4,
    quantBytes: 16,
    activationBytes: 16,
    *columns(quants, offset) {
      const words = loadWords(quants, offset);
      for (let nibble = 0; nibble < 8; nibble++) {
        const mask = masks[nibble];
        yield {
          activation: 4 * (nibble >> 1) + 64 * (nibble & 1),
          weights: (vector) => {
            const word = words[vector]!;
            // The top nibble would be a sign in its place.
            const placed = mask === undefined ? i32x4.shr_u(word, 28) : v128.and(word, mask);
            return f32x4.convert_i32x4_s(placed);
          },
        };
      }
    },
    ...FLOAT_ARITHMETIC,
  };
}

/** Bytes as f32, of each 16-bit pair the first one where it lies; times f32 that make up for it. */
function exactBytes(context: BlockContext): Family {
  const loadPairs = loader(context, v128.load8x8_s);
  return {
    numColumns: 4,
    unrolled: 16,
    steps: BLOCK_COLUMNS / 4,
    quantBytes: 16,
    activationBytes: 16,
    *columns(quants, offset) {
      for (const i of [0, 1]) {
        const pairs = loadPairs(quants, offset + 8 * i);
        yield {
          activation: 4 * i,
          weights: (vector) => f32x4.convert_i32x4_s(i32x4.shl(pairs[vector]!, 16)),
        };
        yield {
          activation: 4 * i + 8,
          weights: (vector) => f32x4.convert_i32x4_s(i32x4.shr_s(pairs[vector]!, 16)),
        };
      }
    },
    ...FLOAT_ARITHMETIC,
  };
}

/** Weights that are floats. */
function floats({ k, format }: BlockContext): Family {
  const { vectorBytes } = blockOffsets(format);
  const loadHalves = halfLoader(k);
  const scale = k.let(f32x4Const(1 / HALF_SHIFT.SCALE));
  const load = (quants: Int, offset: number): Vector => {
    if (format === "f32") return v128.load(quants, offset);
    if (format === "bf16") return i32x4.shl(v128.load16x4_u(quants, offset), 16);
    return f32x4.mul(loadHalves(quants, offset), scale);
  };
  return {
    numColumns: 1,
    unrolled: 32,
    steps: BLOCK_COLUMNS,
    quantBytes: (TILE_ROWS / VECTOR_ROWS) * vectorBytes,
    activationBytes: 4,
    columns: (quants, offset) => [
      { activation: 0, weights: (vector) => load(quants, offset + vector * vectorBytes) },
    ],
    ...FLOAT_ARITHMETIC,
  };
}

// --- Scales and minima ---

/** Code to load four f16 as f32 times 2^-112: by their bits, which keeps subnormal ones. */
function halfLoader(k: FunctionBody): (address: Int, offset: number) => Vector {
  const mask = k.let(i32x4Const(0x8fffe000 | 0));
  return (address, offset) => v128.and(i32x4.shl(v128.load16x4_s(address, offset), 13), mask);
}

/** Code for sums times their scale, and for the minimum times the sum of the activations. */
function scaler(context: BlockContext) {
  const { k, format, precision, vectors, tails } = context;
  const { scaleBytes } = MATRIX_LAYOUTS[format];
  const { tail } = ACTIVATION_BYTES[formatOfActivations(context)];
  const isHalf = scaleBytes === 2;
  const isFast = precision === "fast";
  const loadHalves = halfLoader(k);
  const unshifted = k.let(f32x4Const(1 / HALF_SHIFT.SCALE));
  const scales = Array.from({ length: vectors }, () => k.local("v128"));
  const factor = k.local("v128");

  /** Four scales or minima, one a row. f16 ones come times 2^-112 where activations make up for it. */
  const load = (address: Int): void => {
    for (const [vector, scale] of scales.entries()) {
      const offset = vector * VECTOR_ROWS * scaleBytes;
      if (!isHalf) k.set(scale, v128.load(address, offset));
      else if (isFast) k.set(scale, loadHalves(address, offset));
      else k.set(scale, f32x4.mul(loadHalves(address, offset), unshifted));
    }
  };
  /** A word of a row's tail, in all lanes. */
  const loadTail = (row: number, word: number): Vector =>
    v128.load32_splat(tails, row * tail + word);

  return {
    addScaled(totals: Sums, address: Int, sum: (row: number, vector: number) => Vector): void {
      load(address);
      for (const [row, ofRow] of totals.entries()) {
        const word = isHalf ? tailWords.HALF_STEP : tailWords.STEP;
        const step = isFast ? shared(k, factor, loadTail(row, word), vectors) : undefined;
        for (const [vector, total] of ofRow.entries()) {
          const scale = scales[vector]!;
          const scaled = step === undefined ? scale : f32x4.mul(scale, step);
          addTo(k, total, f32x4.mul(sum(row, vector), scaled));
        }
      }
    },
    addMinima(totals: Sums, address: Int): void {
      load(address);
      const word = isHalf ? tailWords.HALF_SUM : tailWords.SUM;
      for (const [row, ofRow] of totals.entries()) {
        const sum = shared(k, factor, loadTail(row, isFast ? word : 0), vectors);
        for (const [vector, total] of ofRow.entries()) {
          addTo(k, total, f32x4.mul(scales[vector]!, sum));
        }
      }
    },
  };
}
