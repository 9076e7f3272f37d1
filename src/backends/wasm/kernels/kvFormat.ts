import type { KvCacheDtype } from "../../ops.ts";
import { DIM_GROUP, UNIT_SLOTS } from "../attentionAbi.ts";
import type { FunctionBody } from "./emit.ts";
import { f32x4, f32x4Const, i32, i32x4, i32x4Const, v128 } from "./instructions.ts";
import type { Int, Value, Variable, Vector } from "./value.ts";

/** How kernels read and write the values of the KV pool; attentionAbi.ts has the layout. */
export interface KvFormat {
  readonly dtype: KvCacheDtype;
  readonly elementBytes: number;
  /** Values are read as multiples of 2^-`readExponent`. */
  readonly readExponent: number;
  /** Makes a reader of groups of 8, the first four and the last; each read replaces the one before. */
  readonly reader: (k: FunctionBody) => (address: Int, offset: number) => readonly [Vector, Vector];
  /** Writes one head's K, [headDim] f32 at `source`, to a slot 0..7 of the unit. */
  readonly writeKey: (k: FunctionBody, head: HeadWrite) => void;
  /** The same for V. */
  readonly writeValue: (k: FunctionBody, head: HeadWrite) => void;
}

interface HeadWrite {
  readonly source: Variable<"i32">;
  readonly unit: Variable<"i32">;
  readonly slot: Variable<"i32">;
  readonly headDim: Variable<"i32">;
}

/** A place in a layer's part of the pool; blocks have 2^blockShift slots. */
interface UnitPlace {
  readonly layer: Int;
  readonly numKvHeads: Int;
  readonly kvHead: Int;
  readonly headDim: Int;
  readonly blockShift: Int;
  readonly block: Int;
  /** Slot in the block. */
  readonly offset: Int;
}

/** Address of the unit that holds a slot of a block. */
export function unitAddress({ elementBytes }: KvFormat, place: UnitPlace): Value<"i32"> {
  const { layer, numKvHeads, kvHead, headDim, blockShift, block, offset } = place;
  const head = i32.add(i32.mul(block, numKvHeads), kvHead);
  const unit = i32.add(i32.shl(head, i32.sub(blockShift, 3)), i32.shr_u(offset, 3));
  return i32.add(layer, i32.mul(unit, i32.mul(headDim, 2 * UNIT_SLOTS * elementBytes)));
}

/** Address of a group of V: from a unit's start to the slot's part of the first group. */
function valueAddress(elementBytes: number, { unit, slot, headDim }: HeadWrite): Value<"i32"> {
  return i32.add(
    i32.add(unit, i32.mul(headDim, UNIT_SLOTS * elementBytes)),
    i32.mul(slot, DIM_GROUP * elementBytes),
  );
}

const LARGEST_HALF = 65504;
const SMALLEST_NORMAL_HALF_BITS = 0x38800000; // 2^-14 as f32

/**
 * The nearest f16 of four f32, ties to even, in the low halves of the lanes. What is beyond the
 * largest f16 is held there, NaN too.
 */
export function toHalf(k: FunctionBody, x: Vector): Variable<"v128"> {
  const value = k.let(x);
  const size = k.let(f32x4.pmin(f32x4Const(LARGEST_HALF), f32x4.abs(value)));
  const isOdd = v128.and(i32x4.shr_u(size, 13), i32x4Const(1));
  const rounded = i32x4.shr_u(i32x4.add(size, i32x4.add(isOdd, i32x4Const(0xfff))), 13);
  const normal = i32x4.sub(rounded, i32x4Const((127 - 15) << 10));
  // Below 2^-14 an f16 counts 2^-24, which is what the last bit of numbers from 0.5 to 1 counts.
  const subnormal = i32x4.sub(f32x4.add(size, f32x4Const(0.5)), f32x4Const(0.5));
  const isNormal = i32x4.gt_s(size, i32x4Const(SMALLEST_NORMAL_HALF_BITS - 1));
  const sign = v128.and(i32x4.shr_u(value, 16), i32x4Const(0x8000));
  return k.let(v128.or(v128.bitselect(normal, subnormal, isNormal), sign));
}

/**
 * A word of two halves is read with two operations each: a half's bits go up to the sign and the
 * exponent of an f32, the copies of the sign between them are cleared. That is the value times
 * 2^-112, subnormal halves included.
 */
const F16: KvFormat = {
  dtype: "f16",
  elementBytes: 2,
  readExponent: 112,
  reader(k) {
    const mask = k.let(i32x4Const(0x8fffe000 | 0));
    const lowHalf = k.let(i32x4Const(1 << 13)); // as i16 pairs: low half * 2^13 + high half * 0
    const low = k.local("v128");
    const high = k.local("v128");
    return (address, offset) => {
      k.set(high, v128.load(address, offset));
      k.set(low, v128.and(i32x4.dot_i16x8_s(high, lowHalf), mask));
      k.set(high, v128.and(i32x4.shr_s(high, 3), mask));
      return [low, high];
    };
  },
  writeKey(k, { source, unit, slot, headDim }) {
    // The slot's place in the order 0, 4, 1, 5, 2, 6, 3, 7.
    const place = i32.add(i32.shl(i32.and(slot, 3), 1), i32.shr_u(slot, 2));
    const target = k.let(i32.add(unit, i32.shl(place, 1)));
    const from = k.let(source);
    k.for(0, headDim, 4, () => {
      const halves = toHalf(k, v128.load(from));
      for (let lane = 0; lane < 4; lane++) {
        i32.store16(target, lane * UNIT_SLOTS * 2, i32x4.extract_lane(halves, lane));
      }
      k.set(target, i32.add(target, 4 * UNIT_SLOTS * 2));
      k.set(from, i32.add(from, 16));
    });
  },
  writeValue(k, head) {
    const target = k.let(valueAddress(2, head));
    const from = k.let(head.source);
    k.for(0, head.headDim, DIM_GROUP, () => {
      const low = toHalf(k, v128.load(from));
      const high = toHalf(k, v128.load(from, 16));
      v128.store(target, 0, v128.or(low, i32x4.shl(high, 16)));
      k.set(target, i32.add(target, UNIT_SLOTS * DIM_GROUP * 2));
      k.set(from, i32.add(from, DIM_GROUP * 4));
    });
  },
};

const F32: KvFormat = {
  dtype: "f32",
  elementBytes: 4,
  readExponent: 0,
  reader(k) {
    const low = k.local("v128");
    const high = k.local("v128");
    return (address, offset) => {
      k.set(low, v128.load(address, offset));
      k.set(high, v128.load(address, offset + 16));
      return [low, high];
    };
  },
  writeKey(k, { source, unit, slot, headDim }) {
    const target = k.let(i32.add(unit, i32.shl(slot, 2)));
    const from = k.let(source);
    k.for(0, headDim, 4, () => {
      for (let lane = 0; lane < 4; lane++) {
        i32.store(target, lane * UNIT_SLOTS * 4, i32.load(from, lane * 4));
      }
      k.set(target, i32.add(target, 4 * UNIT_SLOTS * 4));
      k.set(from, i32.add(from, 16));
    });
  },
  writeValue(k, head) {
    const target = k.let(valueAddress(4, head));
    const from = k.let(head.source);
    k.for(0, head.headDim, DIM_GROUP, () => {
      v128.store(target, 0, v128.load(from));
      v128.store(target, 16, v128.load(from, 16));
      k.set(target, i32.add(target, UNIT_SLOTS * DIM_GROUP * 4));
      k.set(from, i32.add(from, DIM_GROUP * 4));
    });
  },
};

export const KV_FORMATS = [F16, F32] as const;
