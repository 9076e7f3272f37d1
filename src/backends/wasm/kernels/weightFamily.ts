/**
 * @file The families of formats: how to get columns of weights out of a block, how to multiply them
 * with activations, and how to add up.
 */
import { TILE_ROWS } from "../abi.ts";
import type { Simd } from "../kernelModule.ts";
import {
  BLOCK_COLUMNS,
  blockOffsets,
  HALF_SHIFT,
  MATRIX_LAYOUTS,
  type MatrixFormat,
  type Precision,
  VECTOR_ROWS,
} from "../matrixFormat.ts";
import type { FunctionBody } from "./emit.ts";
import { f32x4, f32x4Const, i16x8, i16x8Const, i32x4, i32x4Const, v128 } from "./instructions.ts";
import type { Int, Variable, Vector } from "./value.ts";

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

/** Weights of one or more neighbours along K for each row of a vector, as the family multiplies them. */
interface Column {
  readonly weights: (vector: number) => Vector;
  /** Byte offset of the activations that they meet. */
  readonly activation: number;
}

export interface Family {
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

/** Sets the family's constants: call it before any loop. */
export function familyOf(context: BlockContext): Family {
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

/** Code to load four f16 as f32 times 2^-112: by their bits, which keeps subnormal ones. */
export function halfLoader(k: FunctionBody): (address: Int, offset: number) => Vector {
  const mask = k.let(i32x4Const(0x8fffe000 | 0));
  return (address, offset) => v128.and(i32x4.shl(v128.load16x4_s(address, offset), 13), mask);
}
