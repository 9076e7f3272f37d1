import { type ConstantTable, SCORES, SCORES_STRIDE, STATE_BYTES, STATES } from "./attendScratch.ts";
import { define, type Wasm } from "./emit.ts";
import { f32, f32x4, f32x4Const, i32, i32x4, i32x4Lanes, v128 } from "./instructions.ts";
import { exp, maxOfLanes, sumOfLanes } from "./math.ts";

/** Stands for minus infinity. */
export const LOWEST = -3e38;

/**
 * softmax(scratch, count, scoreFactor, weightFactor): turns the raw scores of `size` heads into
 * e^(score - maximum) * weightFactor, and leaves the maximum and the sum of e^(score - maximum) in
 * their states. Lanes past the count may hold anything, NaN too.
 */
export function defineSoftmax(size: number, constants: ConstantTable): Wasm {
  const heads = Array.from({ length: size }, (_, i) => i);
  return define(
    `softmax${size}`,
    ["i32", "i32", "f32", "f32"],
    (k, scratch, count, scoreFactor, weightFactor) => {
      const lowest = k.let(f32x4Const(LOWEST));
      const maxima = heads.map(() => k.let(lowest));
      const factor = k.let(f32x4.splat(scoreFactor));
      const limit = k.let(i32x4.splat(count));
      const position = k.let(i32x4Lanes(0, 1, 2, 3));
      const at = k.let(scratch);
      const score = k.local("v128");
      k.for(0, count, 4, () => {
        const isSeen = k.let(i32x4.lt_s(position, limit));
        for (const [head, maximum] of maxima.entries()) {
          const offset = SCORES + head * SCORES_STRIDE;
          const scaled = f32x4.mul(v128.load(at, offset), factor);
          k.set(score, v128.bitselect(scaled, lowest, isSeen));
          v128.store(at, offset, score);
          k.set(maximum, f32x4.pmax(maximum, score));
        }
        k.set(position, i32x4.add(position, i32x4Lanes(4, 4, 4, 4)));
        k.set(at, i32.add(at, 16));
      });
      for (const [head, maximum] of maxima.entries()) {
        k.set(maximum, maxOfLanes(k, maximum));
        f32.store(scratch, STATES + head * STATE_BYTES, f32x4.extract_lane(maximum, 0));
      }

      const sums = heads.map(() => k.let(f32x4Const(0)));
      const weightScale = k.let(f32x4.splat(weightFactor));
      k.set(at, scratch);
      k.for(0, count, 4, () => {
        const constant = constants.reader(k, scratch);
        for (const [head, sum] of sums.entries()) {
          const offset = SCORES + head * SCORES_STRIDE;
          k.set(score, v128.load(at, offset));
          const power = exp(k, f32x4.sub(score, maxima[head]!), constant);
          const weight = k.let(v128.and(power, f32x4.gt(score, lowest)));
          k.set(sum, f32x4.add(sum, weight));
          v128.store(at, offset, f32x4.mul(weight, weightScale));
        }
        k.set(at, i32.add(at, 16));
      });
      for (const [head, sum] of sums.entries()) {
        const total = f32x4.extract_lane(sumOfLanes(k, sum), 0);
        f32.store(scratch, STATES + head * STATE_BYTES + 4, total);
      }
      return undefined;
    },
  );
}
