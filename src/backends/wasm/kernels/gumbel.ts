import type { FunctionBody } from "./emit.ts";
import { f32x4, f32x4Const, i32x4, i32x4Const, v128 } from "./instructions.ts";
import { log, madd } from "./math.ts";
import type { Int, Variable, Vector } from "./value.ts";

/** What a draw is keyed by besides the token. Words. */
export interface NoiseKey {
  readonly position: Int;
  readonly seedLow: Int;
  readonly seedHigh: Int;
}

/**
 * Gumbel noise, the algorithm of shaders/sample/gumbel.wgsl: argmax(logit + noise) is a draw from
 * softmax(logits), and depends on nothing but token, position and seed.
 */
export interface Noise {
  /** u of four tokens: 2^-24 <= u <= 1 - 2^-24. */
  uniform(ids: Vector): Variable<"v128">;
  /** -ln(-ln u). */
  noise(u: Vector): Vector;
  /**
   * What the noise of u does not exceed, without a logarithm: -ln u >= 1 - u, so the noise is at most
   * -ln(1 - u), and that at most what the exponent of 1 - u says.
   */
  bound(u: Vector): Vector;
}

/** Far more than the logarithms' errors. */
const BOUND_MARGIN = 0.01;

/** To be called outside the loop over the tokens: what depends on the key alone is computed here. */
export function gumbelNoise(k: FunctionBody, { position, seedLow, seedHigh }: NoiseKey): Noise {
  const mix = (word: Vector): Vector =>
    i32x4.add(i32x4.mul(word, i32x4Const(1664525)), i32x4Const(1013904223));
  const y0 = k.let(mix(i32x4.splat(position)));
  const z0 = k.let(mix(i32x4.splat(seedLow)));
  const w0 = k.let(mix(i32x4.splat(seedHigh)));
  const yw0 = k.let(i32x4.mul(y0, w0));
  return {
    uniform(ids) {
      const x = k.let(i32x4.add(mix(ids), yw0));
      const y = k.let(i32x4.add(y0, i32x4.mul(z0, x)));
      const z = k.let(i32x4.add(z0, i32x4.mul(x, y)));
      const w = k.let(i32x4.add(w0, i32x4.mul(y, z)));
      for (const word of [x, y, w]) k.set(word, v128.xor(word, i32x4.shr_u(word, 16)));
      // Of pcg4d's second round only x is wanted, its first word. 24 bits, exact.
      const bits = i32x4.shr_u(i32x4.add(x, i32x4.mul(y, w)), 9);
      const halves = f32x4.add(f32x4.convert_i32x4_s(bits), f32x4Const(0.5));
      return k.let(f32x4.mul(halves, f32x4Const(2 ** -23)));
    },
    noise: (u) => f32x4.neg(log(k, f32x4.neg(log(k, u)))),
    bound(u) {
      const exponent = i32x4.shr_u(f32x4.sub(f32x4Const(1), u), 23);
      const powers = f32x4.convert_i32x4_s(i32x4.sub(i32x4Const(127), exponent));
      return madd(f32x4Const(BOUND_MARGIN), powers, f32x4Const(Math.LN2));
    },
  };
}
