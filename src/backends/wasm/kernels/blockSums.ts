/**
 * @file The inner loop of linear layers: one block of 32 weights of some vectors of 4 output rows,
 * times one block of activations of some rows, onto their totals.
 *
 * A family of formats says how to get a column of weights, how to multiply it and how to add up.
 * Code is unrolled over rows and vectors, and over as much of the block as pays.
 */
import { TILE_ROWS } from "../abi.ts";
import {
  ACTIVATION_BYTES,
  activationFormat,
  HALF_SHIFT,
  MATRIX_LAYOUTS,
  tailWords,
  VECTOR_ROWS,
} from "../matrixFormat.ts";
import type { FunctionBody } from "./emit.ts";
import { f32x4, f32x4Const, i32, i32x4Const, v128 } from "./instructions.ts";
import type { Int, Variable, Vector } from "./value.ts";
import { type BlockContext, type Family, familyOf, halfLoader } from "./weightFamily.ts";

/** One vector for each row and output vector: [row][vector]. */
export type Sums = readonly (readonly Variable<"v128">[])[];

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
  const { k, rows, vectors, format, precision, simd } = context;
  const locals = (count: number) => Array.from({ length: count }, () => k.local("v128"));
  const sums = Array.from({ length: rows }, () => locals(vectors));
  const weightLocals = locals(vectors);
  const activationLocal = k.local("v128");
  const zero = k.let(i32x4Const(0));
  const { values } = ACTIVATION_BYTES[activationFormat(format, precision, simd)];
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

// --- Scales and minima ---

/** Code for sums times their scale, and for the minimum times the sum of the activations. */
function scaler(context: BlockContext) {
  const { k, format, precision, simd, vectors, tails } = context;
  const { scaleBytes } = MATRIX_LAYOUTS[format];
  const { tail } = ACTIVATION_BYTES[activationFormat(format, precision, simd)];
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
