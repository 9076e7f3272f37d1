import { mergeWords } from "../abi.ts";
import { DIM_GROUP, MERGE, PARTIAL_STATE_BYTES } from "../attentionAbi.ts";
import type { Wasm } from "./emit.ts";
import { f32, f32x4, f32x4Const, i32, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { exp, madd } from "./math.ts";
import { LOWEST } from "./softmax.ts";

/**
 * An item is one head of one row that has several partial results, joined in ascending order:
 * sum of w_i o_i / sum of w_i s_i with w_i = e^(maximum_i - maximum). The weights are kept in the
 * partials' own states meanwhile.
 */
export function defineMergeAttention(): Wasm {
  return defineKernel("mergeAttention", MERGE, (k, { param, begin, end }) => {
    const numHeads = k.let(param("numHeads"));
    const headDim = k.let(param("headDim"));
    const headBytes = k.let(i32.shl(headDim, 2));
    const partialBytes = k.let(i32.add(headBytes, PARTIAL_STATE_BYTES));
    const stride = k.let(i32.mul(numHeads, partialBytes)); // between partials of a head
    const maximum = k.local("v128");
    const sum = k.local("v128");
    const sumLow = k.local("v128");
    const sumHigh = k.local("v128");
    const at = k.local("i32");
    k.for(begin, end, 1, (work) => {
      const head = k.let(i32.rem_u(work, numHeads));
      const merge = k.let(
        i32.add(param("merges"), i32.mul(i32.div_u(work, numHeads), mergeWords.BYTES)),
      );
      const count = k.let(i32.load(merge, mergeWords.PARTIALS * 4));
      const firstIndex = i32.mul(i32.load(merge, mergeWords.FIRST_PARTIAL * 4), numHeads);
      const first = k.let(
        i32.add(param("partials"), i32.mul(i32.add(firstIndex, head), partialBytes)),
      );
      const eachPartial = (body: () => void): void => {
        k.set(at, first);
        k.for(0, count, 1, () => {
          body();
          k.set(at, i32.add(at, stride));
        });
      };
      k.set(maximum, f32x4Const(LOWEST));
      eachPartial(() => k.set(maximum, f32x4.pmax(maximum, v128.load32_splat(at))));
      k.set(sum, f32x4Const(0));
      eachPartial(() => {
        const weight = exp(k, f32x4.sub(v128.load32_splat(at), maximum));
        k.set(sum, madd(sum, weight, v128.load32_splat(at, 4)));
        f32.store(at, 8, f32x4.extract_lane(weight, 0));
      });
      const factor = k.let(f32x4.div(f32x4Const(1), sum));
      const row = i32.load(merge, mergeWords.ROW * 4);
      const target = k.let(
        i32.add(
          i32.add(param("outputs"), i32.mul(row, param("outputStride"))),
          i32.mul(head, headBytes),
        ),
      );
      const values = k.let(i32.const(PARTIAL_STATE_BYTES)); // of the group, in each partial
      k.for(0, headDim, DIM_GROUP, () => {
        k.set(sumLow, f32x4Const(0));
        k.set(sumHigh, f32x4Const(0));
        eachPartial(() => {
          const weight = k.let(v128.load32_splat(at, 8));
          const value = k.let(i32.add(at, values));
          k.set(sumLow, madd(sumLow, weight, v128.load(value)));
          k.set(sumHigh, madd(sumHigh, weight, v128.load(value, 16)));
        });
        v128.store(target, 0, f32x4.mul(sumLow, factor));
        v128.store(target, 16, f32x4.mul(sumHigh, factor));
        k.set(target, i32.add(target, DIM_GROUP * 4));
        k.set(values, i32.add(values, DIM_GROUP * 4));
      });
    });
  });
}
