import type { FunctionBody } from "./emit.ts";
import { f32x4, f32x4Const, i8x16, i32x4, i32x4Const } from "./instructions.ts";
import type { Variable, Vector } from "./value.ts";

// Elementary functions of four f32 lanes. Plain multiplies and adds in a fixed order: the same bits
// in every engine, with and without relaxed SIMD.

const LOG2_E = Math.LOG2E;
// ln 2 in two parts: the first has so few bits that n * LN2_HIGH is exact for every exponent n.
const LN2_HIGH = 0.693359375;
const LN2_LOW = -2.1219444005469057e-4;
const ROUNDING = 1.5 * 2 ** 23;
const SQRT_HALF_BITS = 0x3f3504f3;

/** Arguments of `exp` are held here: e^-87 and e^88 are normal numbers. */
const EXP_MIN = -87;
const EXP_MAX = 88;

/** a + b * c as one multiply and one add. */
export function madd(a: Vector, b: Vector, c: Vector): Vector {
  return f32x4.add(a, f32x4.mul(b, c));
}

/**
 * e^x to about 1 ULP: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by its Taylor polynomial of degree 7
 * (error below 1e-8), times 2^n by its exponent bits.
 */
export function exp(
  k: FunctionBody,
  x: Vector,
  constant: (value: number) => Vector = f32x4Const,
): Variable<"v128"> {
  const held = k.let(f32x4.pmin(f32x4.pmax(x, constant(EXP_MIN)), constant(EXP_MAX)));
  // The sum's last bit counts 1: adding rounds to an integer and leaves it in the low bits.
  const rounding = k.let(constant(ROUNDING));
  const shifted = k.let(f32x4.add(f32x4.mul(held, constant(LOG2_E)), rounding));
  const n = k.let(f32x4.sub(shifted, rounding));
  const r = k.let(
    f32x4.sub(f32x4.sub(held, f32x4.mul(n, constant(LN2_HIGH))), f32x4.mul(n, constant(LN2_LOW))),
  );
  let sum: Vector = constant(1 / 5040);
  for (const factorial of [720, 120, 24, 6, 2, 1, 1]) {
    sum = madd(constant(1 / factorial), sum, r);
  }
  const power = i32x4.add(i32x4.shl(shifted, 23), constant(1));
  return k.let(f32x4.mul(sum, power));
}

/** ln x of normal x > 0, to a few ULP also near 1; the algorithm of shaders/sample/log.wgsl. */
export function log(k: FunctionBody, x: Vector): Variable<"v128"> {
  const bits = k.let(x);
  const e = k.let(i32x4.shr_s(i32x4.sub(bits, i32x4Const(SQRT_HALF_BITS)), 23));
  const m = k.let(i32x4.sub(bits, i32x4.shl(e, 23)));
  const one = f32x4Const(1);
  const z = k.let(f32x4.div(f32x4.sub(m, one), f32x4.add(m, one)));
  const z2 = k.let(f32x4.mul(z, z));
  let tail: Vector = f32x4Const(1 / 9);
  for (const divisor of [7, 5, 3]) tail = madd(f32x4Const(1 / divisor), z2, tail);
  const series = k.let(madd(z, z, f32x4.mul(z2, tail)));
  return k.let(
    f32x4.add(
      f32x4.mul(f32x4.convert_i32x4_s(e), f32x4Const(Math.LN2)),
      f32x4.mul(series, f32x4Const(2)),
    ),
  );
}

/** The sum of the four lanes, (x0 + x2) + (x1 + x3), in every lane. */
export function sumOfLanes(k: FunctionBody, x: Vector): Variable<"v128"> {
  const halves = k.let(x);
  k.set(halves, f32x4.add(halves, swapHalves(halves)));
  return k.let(f32x4.add(halves, swapPairs(halves)));
}

/** The largest of the four lanes, in every lane. */
export function maxOfLanes(k: FunctionBody, x: Vector): Variable<"v128"> {
  const halves = k.let(x);
  k.set(halves, f32x4.pmax(halves, swapHalves(halves)));
  return k.let(f32x4.pmax(halves, swapPairs(halves)));
}

/** Lanes 2, 3, 0, 1. */
export function swapHalves(x: Variable<"v128">): Vector {
  return shuffleWords(x, [2, 3, 0, 1]);
}

/** Lanes 1, 0, 3, 2. */
export function swapPairs(x: Variable<"v128">): Vector {
  return shuffleWords(x, [1, 0, 3, 2]);
}

function shuffleWords(x: Variable<"v128">, words: readonly number[]): Vector {
  return i8x16.shuffle(
    x,
    x,
    words.flatMap((word) => [0, 1, 2, 3].map((byte) => word * 4 + byte)),
  );
}
