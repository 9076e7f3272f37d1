import { sampleParams } from "../samplerAbi.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import { f32, f32x4, i32, i32x4, i32x4Const, i64, select, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { exp } from "./math.ts";
import { LEAST_ORDER, NO_VALUE, orderOf, orderOfFloat, sampleState } from "./sampleCommon.ts";
import type { Float, Int, Value, Variable, Vector } from "./value.ts";

/** Bins of a round of the radix selection: 11 bits of the order, 8 bytes each. One more takes what is out. */
const BIN_BITS = 11;
const BINS = 2 ** BIN_BITS;
/** Bits below a round's digit: 11 + 11 + 10 = 32. */
const FIRST_SHIFT = 32 - BIN_BITS;
const SECOND_SHIFT = FIRST_SHIFT - BIN_BITS;

/**
 * sampleSelect: which tokens min-p, top-k and top-p keep, an item a sample. THRESHOLDS gets the order
 * of the last one kept; all that tie with it stay.
 *   min-p: l >= max + ln(minP).  top-k: the k-th largest of those.
 *   top-p: the smallest set of the best of what is left whose mass reaches topP of all its mass
 */
export function defineSelectKernel(): Wasm {
  const refine = defineRefine();
  return defineKernel("sampleSelect", sampleParams, (k, context) => {
    const { param, begin, end, scratch } = context;
    k.for(begin, end, 1, (index) => {
      const sample = sampleState(k, context, index);
      k.if(sample.has("SELECT_FLAG"), () => {
        const best = k.let(f32.const(NO_VALUE));
        const bests = k.let(
          i32.add(param("BESTS"), i32.mul(i32.mul(index, param("CHUNKS")), i32.const(8))),
        );
        k.for(0, param("CHUNKS"), 1, () => {
          k.set(best, f32.max(best, f32.load(bests)));
          k.set(bests, i32.add(bests, 8));
        });
        const threshold = k.let(i32.const(LEAST_ORDER));
        k.if(sample.has("MIN_P_FLAG"), () =>
          k.set(threshold, orderOfFloat(k, f32.add(best, sample.float("SLOT_LOG_MIN_P")))),
        );
        const narrow = (massScale: Float, goal: Int): void =>
          k.set(
            threshold,
            k.callFor(
              refine,
              "i32",
              sample.scaled,
              param("VOCABULARY"),
              threshold,
              best,
              massScale,
              goal,
              scratch,
            ),
          );
        k.if(sample.has("TOP_K_FLAG"), () => narrow(0, sample.word("SLOT_TOP_K")));
        k.if(sample.has("TOP_P_FLAG"), () =>
          narrow(f32.reinterpret_i32(param("MASS_SCALE")), sample.word("SLOT_TOP_P")),
        );
        i32.store(i32.add(param("THRESHOLDS"), i32.shl(index, 2)), 0, threshold);
      });
    });
  });
}

/**
 * refine(row, numTokens, threshold, best, massScale, goal, bins) -> the order of the last token that is
 * to be kept of those from `threshold` on, or `threshold` if all of them are.
 * massScale = 0: `goal` tokens. Else tokens of goal / 2^32 of the mass, at least one; a token's mass
 * is exp(x - best) * massScale as an integer, so that sums depend on no order.
 *
 * A radix selection: how much lies in each bin of the order's highest 11 bits; the bin in which the
 * sum from above reaches the goal is looked at more closely, twice.
 */
function defineRefine(): Wasm {
  return define(
    "sampleRefine",
    ["i32", "i32", "i32", "f32", "f32", "i32", "i32"],
    (k, row, numTokens, threshold, best, massScale, share, bins) => {
      const base = k.let(i32.const(LEAST_ORDER)); // least order of the bin that is looked at
      const shift = k.let(i32.const(FIRST_SHIFT));
      const goal = k.let(i64.const(0n)); // still to be reached within it
      const goesOn = k.let(i32.const(1));
      k.while(
        () => goesOn,
        () => {
          fillBins(k, { row, numTokens, threshold, best, massScale, bins, base, shift });
          k.if(i32.eq(shift, FIRST_SHIFT), () => {
            const total = sumBins(k, bins);
            k.if(
              f32.eq(massScale, 0),
              () => {
                k.set(goal, i64.extend_i32_u(share));
                k.set(goesOn, i64.lt_u(goal, total));
              },
              () => k.set(goal, massOf(k, total, i64.extend_i32_u(share))),
            );
          });
          k.if(goesOn, () => {
            const bin = k.let(i32.add(bins, BINS * 8));
            const digit = k.let(i32.const(BINS));
            const amount = k.let(i64.const(0n));
            // Downwards until the sum reaches the goal. It does: the goal is at most all of it.
            k.while(
              () => i32.and(i64.lt_u(amount, goal), i32.gt_s(digit, 0)),
              () => {
                k.set(goal, i64.sub(goal, amount));
                k.set(digit, i32.sub(digit, 1));
                k.set(bin, i32.sub(bin, 8));
                k.set(amount, i64.load(bin));
              },
            );
            k.set(base, i32.add(base, i32.shl(digit, shift)));
            k.set(goesOn, i32.ne(shift, 0));
            k.set(shift, select(i32.eq(shift, FIRST_SHIFT), i32.const(SECOND_SHIFT), i32.const(0)));
          });
        },
      );
      // Left early: base is still the least, and all are kept.
      return select(i32.gt_s(base, threshold), base, threshold);
    },
  );
}

interface Round {
  readonly row: Variable<"i32">;
  readonly numTokens: Variable<"i32">;
  readonly threshold: Variable<"i32">;
  readonly best: Variable<"f32">;
  readonly massScale: Variable<"f32">;
  readonly bins: Variable<"i32">;
  readonly base: Variable<"i32">;
  readonly shift: Variable<"i32">;
}

/** bins[digit] = tokens, or their mass, whose order is base + digit * 2^shift + less than 2^shift. */
function fillBins(k: FunctionBody, round: Round): void {
  const { row, numTokens, threshold, best, massScale, bins, base, shift } = round;
  k.for(0, BINS * 8, 16, (offset) => v128.store(i32.add(bins, offset), 0, i32x4Const(0)));
  // The last round's digits have a bit less.
  const numBins = k.let(i32x4.splat(select(shift, i32.const(BINS), i32.const(BINS / 2))));
  const at = k.let(row);
  k.for(0, numTokens, 4, () => {
    const x = k.let(v128.load(at));
    k.set(at, i32.add(at, 16));
    const order = k.let(orderOf(x));
    const digit = k.let(i32x4.shr_u(i32x4.sub(order, i32x4.splat(base)), shift));
    const isIn = k.let(
      v128.andnot(i32x4.gt_u(numBins, digit), i32x4.lt_s(order, i32x4.splat(threshold))),
    );
    k.if(v128.any_true(isIn), () => {
      const bin = k.let(
        i32x4.add(i32x4.splat(bins), i32x4.shl(v128.bitselect(digit, i32x4Const(BINS), isIn), 3)),
      );
      const mass = k.local("v128");
      const addAll = (amount: (lane: number) => Value<"i64">): void => {
        for (const lane of [0, 1, 2, 3]) {
          const address = k.let(i32x4.extract_lane(bin, lane));
          i64.store(address, 0, i64.add(i64.load(address), amount(lane)));
        }
      };
      k.if(
        f32.eq(massScale, 0),
        () => addAll(() => i64.const(1n)),
        () => {
          const weight: Vector = exp(k, f32x4.sub(x, f32x4.splat(best)));
          k.set(mass, f32x4.mul(weight, f32x4.splat(massScale)));
          addAll((lane) => i64.trunc_sat_f32_u(f32x4.extract_lane(mass, lane)));
        },
      );
    });
  });
}

function sumBins(k: FunctionBody, bins: Variable<"i32">): Variable<"i64"> {
  const total = k.let(i64.const(0n));
  k.for(0, BINS * 8, 8, (offset) => k.set(total, i64.add(total, i64.load(i32.add(bins, offset)))));
  return total;
}

/** ceil(total * share / 2^32), at least 1. */
function massOf(k: FunctionBody, total: Variable<"i64">, share: Value<"i64">): Variable<"i64"> {
  const low = k.let(i64.mul(i64.and(total, 0xffffffffn), share));
  const mass = k.let(i64.add(i64.mul(i64.shr_u(total, 32n), share), i64.shr_u(low, 32n)));
  const isRoundedUp = i32.or(i32.ne(i32.wrap_i64(low), 0), i64.eq(mass, 0n));
  k.if(isRoundedUp, () => k.set(mass, i64.add(mass, 1n)));
  return mass;
}
