import { bestWords, sampleParams } from "../samplerAbi.ts";
import type { Wasm } from "./emit.ts";
import { gumbelNoise } from "./gumbel.ts";
import { f32x4, f32x4Const, i32, i32x4, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { maxOfLanes } from "./math.ts";
import {
  forChunks,
  forTokens,
  hold,
  LEAST_ORDER,
  NO_VALUE,
  orderOf,
  sampleState,
  storeBest,
} from "./sampleCommon.ts";
import type { Variable } from "./value.ts";

/**
 * sampleChoose: the best token of each chunk, ties to the lowest id, by
 *   greedy: the logit;  else: logit / temperature + Gumbel noise, over the tokens that selection left
 * Samples with ADJUST_FLAG take what sampleAdjust wrote; the others need the logits alone.
 */
export function defineChooseKernel(): Wasm {
  return defineKernel("sampleChoose", sampleParams, (k, context) => {
    const { param } = context;
    forChunks(k, context, (index, chunk, item) => {
      const sample = sampleState(k, context, index);
      const isAdjusted = k.let(sample.has("ADJUST_FLAG"));
      const row = k.let(sample.logits);
      k.if(isAdjusted, () => k.set(row, sample.scaled));
      const best = k.let(f32x4Const(NO_VALUE));
      const bestIds = k.let(i32x4.splat(chunk.first));
      const isToken = (ids: Variable<"v128">) => i32x4.lt_s(ids, i32x4.splat(chunk.end));
      /** Of tokens with a score better than the best so far: what is not one has -Infinity. */
      const take = (score: Variable<"v128">, ids: Variable<"v128">): void => {
        k.set(bestIds, v128.bitselect(ids, bestIds, f32x4.gt(score, best)));
        k.set(best, f32x4.pmax(best, score));
      };
      const none = f32x4Const(-Infinity);

      k.if(
        sample.has("NOISE_FLAG"),
        () => {
          const { uniform, bound, noise } = gumbelNoise(k, {
            position: sample.position,
            seedLow: sample.word("SLOT_SEED_LOW"),
            seedHigh: sample.word("SLOT_SEED_HIGH"),
          });
          const inverseTemperature = k.let(f32x4.splat(sample.float("SLOT_INVERSE_TEMPERATURE")));
          const least = k.let(i32.const(LEAST_ORDER));
          k.if(sample.has("SELECT_FLAG"), () =>
            k.set(least, i32.load(i32.add(param("THRESHOLDS"), i32.shl(index, 2)))),
          );
          const bar = k.let(best); // the best so far of all lanes
          forTokens(k, chunk, (ids, offset) => {
            const x = k.let(v128.load(i32.add(row, offset)));
            k.if(i32.eqz(isAdjusted), () => k.set(x, f32x4.mul(hold(x), inverseTemperature)));
            const isOut = i32x4.lt_s(orderOf(x), i32x4.splat(least));
            const isIn = k.let(v128.andnot(isToken(ids), isOut));
            k.if(v128.any_true(isIn), () => {
              const u = uniform(ids);
              // Hardly any token could still win: spares the logarithms.
              const canWin = f32x4.gt(f32x4.add(x, bound(u)), bar);
              k.if(v128.any_true(v128.and(isIn, canWin)), () => {
                const score = f32x4.add(x, noise(u));
                take(k.let(v128.bitselect(score, none, isIn)), ids);
                k.set(bar, maxOfLanes(k, best));
              });
            });
          });
        },
        () =>
          forTokens(k, chunk, (ids, offset) => {
            const x = v128.load(i32.add(row, offset));
            take(k.let(v128.bitselect(x, none, isToken(ids))), ids);
          }),
      );
      const record = k.let(i32.add(param("BESTS"), i32.mul(item, bestWords.BYTES)));
      storeBest(k, best, bestIds, record, bestWords.SCORE, bestWords.TOKEN);
    });
  });
}
