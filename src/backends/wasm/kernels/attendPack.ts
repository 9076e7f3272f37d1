import { DIM_GROUP, PARTIAL_STATE_BYTES, UNIT_SLOTS } from "../attentionAbi.ts";
import {
  QUERIES,
  QUERIES_STRIDE,
  SCORES,
  SCORES_STRIDE,
  STATE_BYTES,
  STATES,
  UNITS,
} from "./attendScratch.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import { f32, f32x4, f32x4Const, i32, select, v128 } from "./instructions.ts";
import type { KvFormat } from "./kvFormat.ts";
import { madd } from "./math.ts";
import type { Variable } from "./value.ts";

/**
 * Powers of two that keep what is read as value * 2^-112 in range: on q, on the finished scores, on
 * the weights of V. |q| of 1e6 times the largest f16 is 2^4 a dimension then; products of q and k
 * from 2^-70 on keep all their bits.
 */
function scalesOf({ readExponent }: KvFormat) {
  const query = readExponent === 0 ? 0 : 80;
  return { query: 2 ** query, score: 2 ** (readExponent - query), weight: 2 ** readExponent };
}

/**
 * attend<size>(scratch, queries, headDim, count, scale, target, isPartial): softmax(q k scale) v of
 * `size` query heads over the `count` positions whose units the scratch lists; to `target`, or as
 * partial results behind their states.
 *
 * Loops are kept as short as they can be: engines load all that an unrolled loop will need before
 * they compute, and spill most of it.
 */
export function defineAttendPack(format: KvFormat, size: number, softmax: Wasm): Wasm {
  const heads = Array.from({ length: size }, (_, i) => i);
  const scales = scalesOf(format);
  return define(
    `attend${size}_${format.dtype}`,
    ["i32", "i32", "i32", "i32", "f32", "i32", "i32"],
    (k, scratch, queries, headDim, count, scale, target, isPartial) => {
      const pack = { scratch, headDim, count, heads };
      loadQueries(k, pack, queries, scales.query);
      writeScores(k, format, pack);
      k.call(softmax, scratch, count, f32.mul(scale, scales.score), scales.weight);
      const stateBytes = i32.mul(isPartial, PARTIAL_STATE_BYTES);
      const targetStride = k.let(i32.add(i32.shl(headDim, 2), stateBytes));
      const at = k.let(target);
      for (const head of heads) {
        const state = STATES + head * STATE_BYTES;
        const factor = k.let(f32.const(1));
        k.if(
          isPartial,
          () => {
            const maximumAndSum = v128.load64_zero(scratch, state);
            v128.store(i32.sub(at, PARTIAL_STATE_BYTES), 0, maximumAndSum);
          },
          () => k.set(factor, f32.div(1, f32.load(scratch, state + 4))),
        );
        f32.store(scratch, state + 8, factor);
        k.set(at, i32.add(at, targetStride));
      }
      writeOutputs(k, format, { ...pack, target, targetStride });
      return undefined;
    },
  );
}

interface Pack {
  readonly scratch: Variable<"i32">;
  readonly headDim: Variable<"i32">;
  readonly count: Variable<"i32">;
  /** Indices of the pack's heads. */
  readonly heads: readonly number[];
}

/** Copies the heads' queries, scaled, to where one address serves them all. */
function loadQueries(
  k: FunctionBody,
  { scratch, headDim, heads }: Pack,
  queries: Variable<"i32">,
  factor: number,
): void {
  const to = k.let(scratch);
  const from = k.let(queries);
  const scale = k.let(f32x4Const(factor));
  k.for(0, headDim, 4, () => {
    const head = k.let(from);
    for (const i of heads) {
      v128.store(to, QUERIES + i * QUERIES_STRIDE, f32x4.mul(v128.load(head), scale));
      if (i < heads.length - 1) k.set(head, i32.add(head, i32.shl(headDim, 2)));
    }
    k.set(to, i32.add(to, 16));
    k.set(from, i32.add(from, 16));
  });
}

/** Raw scores of all slots of the range's units: those past its end are of no meaning. */
function writeScores(
  k: FunctionBody,
  format: KvFormat,
  { scratch, headDim, count, heads }: Pack,
): void {
  // Two units at once where one would leave too few sums to hide the time an addition takes.
  const units = heads.length <= 2 ? [0, 1] : [0];
  const read = format.reader(k);
  const unitAt = k.let(scratch);
  const scoresAt = k.let(scratch);
  const query = k.local("i32");
  const q = k.local("v128");
  const addresses = units.map(() => k.local("i32"));
  const sums = units.map(() => heads.map(() => [k.local("v128"), k.local("v128")] as const));
  k.for(0, count, units.length * UNIT_SLOTS, () => {
    for (const unit of units) {
      k.set(addresses[unit]!, i32.load(unitAt, UNITS + unit * 4));
      for (const sum of sums[unit]!.flat()) k.set(sum, f32x4Const(0));
    }
    k.set(query, scratch);
    k.for(0, headDim, 1, () => {
      for (const unit of units) {
        const [low, high] = read(addresses[unit]!, 0);
        for (const [head, [sumLow, sumHigh]] of sums[unit]!.entries()) {
          k.set(q, v128.load32_splat(query, QUERIES + head * QUERIES_STRIDE));
          k.set(sumLow, madd(sumLow, q, low));
          k.set(sumHigh, madd(sumHigh, q, high));
        }
        k.set(addresses[unit]!, i32.add(addresses[unit]!, UNIT_SLOTS * format.elementBytes));
      }
      k.set(query, i32.add(query, 4));
    });
    for (const unit of units) {
      for (const [head, [sumLow, sumHigh]] of sums[unit]!.entries()) {
        const offset = SCORES + head * SCORES_STRIDE + unit * UNIT_SLOTS * 4;
        v128.store(scoresAt, offset, sumLow);
        v128.store(scoresAt, offset + 16, sumHigh);
      }
    }
    k.set(unitAt, i32.add(unitAt, units.length * 4));
    k.set(scoresAt, i32.add(scoresAt, units.length * UNIT_SLOTS * 4));
  });
}

/** target[head][d] = sum over positions of weight * v[position][d], times the head's factor. */
function writeOutputs(
  k: FunctionBody,
  format: KvFormat,
  pack: Pack & {
    readonly target: Variable<"i32">;
    /** Bytes between heads. */
    readonly targetStride: Variable<"i32">;
  },
): void {
  const { scratch, headDim, count, heads, target, targetStride } = pack;
  const slotBytes = DIM_GROUP * format.elementBytes;
  const groupBytes = UNIT_SLOTS * slotBytes;
  const read = format.reader(k);
  const valuesAt = k.let(i32.mul(headDim, UNIT_SLOTS * format.elementBytes)); // behind a unit's K
  const targetAt = k.let(target);
  const groupsLeft = k.let(i32.div_u(headDim, DIM_GROUP));
  const slotsLeft = k.local("i32");
  const unitAt = k.local("i32");
  const weightAt = k.local("i32");
  const value = k.local("i32");
  const weight = k.local("v128");

  const writeGroups = (numGroups: number): void => {
    const groups = Array.from({ length: numGroups }, (_, i) => i);
    const sums = groups.map(() =>
      heads.map(() => [k.let(f32x4Const(0)), k.let(f32x4Const(0))] as const),
    );
    k.set(unitAt, scratch);
    k.set(weightAt, scratch);
    k.set(slotsLeft, count);
    k.while(
      () => i32.gt_s(slotsLeft, 0),
      () => {
        k.set(value, i32.add(i32.load(unitAt, UNITS), valuesAt));
        // Slots past the range are not touched: 0 times a NaN is one.
        const slots = k.let(
          select(i32.lt_s(slotsLeft, UNIT_SLOTS), slotsLeft, i32.const(UNIT_SLOTS)),
        );
        k.for(0, slots, 1, () => {
          for (const group of groups) {
            const [low, high] = read(value, group * groupBytes);
            for (const [head, [sumLow, sumHigh]] of sums[group]!.entries()) {
              k.set(weight, v128.load32_splat(weightAt, SCORES + head * SCORES_STRIDE));
              k.set(sumLow, madd(sumLow, weight, low));
              k.set(sumHigh, madd(sumHigh, weight, high));
            }
          }
          k.set(value, i32.add(value, slotBytes));
          k.set(weightAt, i32.add(weightAt, 4));
        });
        k.set(unitAt, i32.add(unitAt, 4));
        k.set(slotsLeft, i32.sub(slotsLeft, UNIT_SLOTS));
      },
    );
    const at = k.let(targetAt);
    for (const head of heads) {
      const factor = k.let(v128.load32_splat(scratch, STATES + head * STATE_BYTES + 8));
      for (const group of groups) {
        for (const [half, sum] of sums[group]![head]!.entries()) {
          v128.store(at, group * DIM_GROUP * 4 + half * 16, f32x4.mul(sum, factor));
        }
      }
      if (head < heads.length - 1) k.set(at, i32.add(at, targetStride));
    }
    k.set(valuesAt, i32.add(valuesAt, numGroups * groupBytes));
    k.set(targetAt, i32.add(targetAt, numGroups * DIM_GROUP * 4));
    k.set(groupsLeft, i32.sub(groupsLeft, numGroups));
  };

  // Two groups at once for the same reason as two units above.
  if (heads.length <= 2) {
    k.while(
      () => i32.ge_s(groupsLeft, 2),
      () => writeGroups(2),
    );
  }
  k.while(
    () => groupsLeft,
    () => writeGroups(1),
  );
}
