/** @file The instructions that kernels use, as operations on values. */
import * as w from "wasmati";
import {
  type Instruction,
  type Int,
  type Operand,
  type Operation,
  type Type,
  toValue,
  type Value,
  type Vector,
} from "./value.ts";

/** Operations of one signature, by name. */
function operations<const N extends string, const A extends readonly Type[], const R extends Type>(
  namespace: object,
  names: readonly N[],
  args: A,
  result: R,
): Readonly<Record<N, Operation<A, R>>> {
  const entries = names.map((name) => {
    const instruction = (namespace as Record<string, Instruction>)[name]!;
    const operation: Operation<A, R> = (...operands) => {
      const values = args.map((type, i) => toValue(type, operands[i] as Operand<Type>));
      return {
        type: result,
        emit() {
          for (const value of values) value.emit();
          instruction();
        },
      };
    };
    return [name, operation] as const;
  });
  return Object.fromEntries(entries) as Record<N, Operation<A, R>>;
}

/** Extraction of a lane: `extract_lane(vector, lane)`. */
function lanes<const N extends string, R extends Type>(
  namespace: object,
  names: readonly N[],
  result: R,
): Readonly<Record<N, (vector: Vector, lane: number) => Value<R>>> {
  const entries = names.map((name) => {
    const instruction = (namespace as Record<string, Instruction>)[name]!;
    const operation = (vector: Vector, lane: number): Value<R> => ({
      type: result,
      emit() {
        vector.emit();
        instruction(lane);
      },
    });
    return [name, operation] as const;
  });
  return Object.fromEntries(entries) as Record<N, (vector: Vector, lane: number) => Value<R>>;
}

/** Loads: `load(address, byteOffset)`; the offset is a constant of the instruction. No alignment is assumed. */
function loads<const N extends string, R extends Type>(
  namespace: object,
  names: readonly N[],
  result: R,
): Readonly<Record<N, (address: Int, offset?: number) => Value<R>>> {
  const entries = names.map((name) => {
    const instruction = (namespace as Record<string, Instruction>)[name]!;
    const operation = (address: Int, offset = 0): Value<R> => ({
      type: result,
      emit() {
        toValue("i32", address).emit();
        instruction({ offset, align: 1 });
      },
    });
    return [name, operation] as const;
  });
  return Object.fromEntries(entries) as Record<N, (address: Int, offset?: number) => Value<R>>;
}

/** Stores, to be run: `store(address, byteOffset, value)`. */
function stores<const N extends string, T extends Type>(
  namespace: object,
  names: readonly N[],
  type: T,
): Readonly<Record<N, (address: Int, offset: number, value: Operand<T>) => void>> {
  const entries = names.map((name) => {
    const instruction = (namespace as Record<string, Instruction>)[name]!;
    const operation = (address: Int, offset: number, value: Operand<T>): void => {
      toValue("i32", address).emit();
      toValue(type, value).emit();
      instruction({ offset, align: 1 });
    };
    return [name, operation] as const;
  });
  return Object.fromEntries(entries) as Record<
    N,
    (address: Int, offset: number, value: Operand<T>) => void
  >;
}

const VV = ["v128", "v128"] as const;
const V = ["v128"] as const;
const VI = ["v128", "i32"] as const;
const II = ["i32", "i32"] as const;
const FF = ["f32", "f32"] as const;

export const i32 = {
  const: (value: number): Value<"i32"> => toValue("i32", value),
  ...loads(w.i32, ["load", "load8_u", "load8_s", "load16_u", "load16_s"], "i32"),
  ...stores(w.i32, ["store", "store8", "store16"], "i32"),
  ...operations(
    w.i32,
    ["add", "sub", "mul", "div_u", "div_s", "rem_u", "and", "or", "xor", "shl", "shr_u", "shr_s"],
    II,
    "i32",
  ),
  ...operations(
    w.i32,
    ["eq", "ne", "lt_s", "lt_u", "gt_u", "le_s", "le_u", "ge_s", "ge_u"],
    II,
    "i32",
  ),
  /** Written as lt_s: what wasmati 0.2.4 emits for gt_s compares unsigned. */
  gt_s: (a: Int, b: Int): Value<"i32"> => i32.lt_s(b, a),
  ...operations(w.i32, ["eqz", "clz", "ctz", "popcnt"], ["i32"], "i32"),
  ...operations(w.i32, ["reinterpret_f32", "trunc_sat_f32_s", "trunc_sat_f32_u"], ["f32"], "i32"),
  ...operations(w.i32, ["wrap_i64"], ["i64"], "i32"),
};

export const i64 = {
  const: (value: bigint): Value<"i64"> => toValue("i64", value),
  ...loads(w.i64, ["load"], "i64"),
  ...stores(w.i64, ["store"], "i64"),
  ...operations(w.i64, ["add", "sub", "mul", "shl", "shr_u", "and", "or"], ["i64", "i64"], "i64"),
  ...operations(w.i64, ["eq", "lt_u", "gt_u", "le_u", "ge_u"], ["i64", "i64"], "i32"),
  ...operations(w.i64, ["extend_i32_u", "extend_i32_s"], ["i32"], "i64"),
  ...operations(w.i64, ["trunc_sat_f32_u"], ["f32"], "i64"),
};

export const f32 = {
  const: (value: number): Value<"f32"> => toValue("f32", value),
  ...loads(w.f32, ["load"], "f32"),
  ...stores(w.f32, ["store"], "f32"),
  ...operations(w.f32, ["add", "sub", "mul", "div", "min", "max"], FF, "f32"),
  ...operations(w.f32, ["eq", "ne", "lt", "gt", "le", "ge"], FF, "i32"),
  ...operations(w.f32, ["abs", "neg", "sqrt", "nearest", "floor"], ["f32"], "f32"),
  ...operations(w.f32, ["convert_i32_s", "convert_i32_u", "reinterpret_i32"], ["i32"], "f32"),
};

const v128Loads = [
  "load",
  "load8x8_s",
  "load8x8_u",
  "load16x4_s",
  "load16x4_u",
  "load32_splat",
  "load64_splat",
  "load32_zero",
  "load64_zero",
] as const;

export const v128 = {
  ...loads(w.v128, v128Loads, "v128"),
  ...stores(w.v128, ["store"], "v128"),
  ...operations(w.v128, ["and", "andnot", "or", "xor"], VV, "v128"),
  ...operations(w.v128, ["not"], V, "v128"),
  ...operations(w.v128, ["bitselect"], ["v128", "v128", "v128"], "v128"),
  ...operations(w.v128, ["any_true"], V, "i32"),
  /** Stores one 64-bit lane. */
  store64_lane(address: Int, offset: number, value: Vector, lane: number): void {
    toValue("i32", address).emit();
    value.emit();
    (w.v128.store64_lane as Instruction)({ offset, align: 1 }, lane);
  },
};

export const i8x16 = {
  ...operations(w.i8x16, ["splat"], ["i32"], "v128"),
  ...operations(w.i8x16, ["add", "sub", "narrow_i16x8_s", "narrow_i16x8_u"], VV, "v128"),
  ...operations(w.i8x16, ["shl", "shr_u", "shr_s"], VI, "v128"),
  /** Bytes of a and b (0-15, 16-31) in a new order. */
  shuffle: (a: Vector, b: Vector, bytes: readonly number[]): Vector => ({
    type: "v128",
    emit() {
      a.emit();
      b.emit();
      (w.i8x16.shuffle as Instruction)([...bytes]);
    },
  }),
};

export const i16x8 = {
  ...operations(w.i16x8, ["splat"], ["i32"], "v128"),
  ...operations(
    w.i16x8,
    ["add", "sub", "mul", "narrow_i32x4_s", "relaxed_dot_i8x16_i7x16_s"],
    VV,
    "v128",
  ),
  ...operations(w.i16x8, ["shl", "shr_u", "shr_s"], VI, "v128"),
  ...operations(
    w.i16x8,
    ["extend_low_i8x16_s", "extend_high_i8x16_s", "extend_low_i8x16_u", "extend_high_i8x16_u"],
    V,
    "v128",
  ),
};

export const i32x4 = {
  ...operations(w.i32x4, ["splat"], ["i32"], "v128"),
  ...operations(
    w.i32x4,
    ["add", "sub", "mul", "dot_i16x8_s", "eq", "ne", "gt_s", "lt_s", "min_s", "max_s", "gt_u"],
    VV,
    "v128",
  ),
  ...operations(w.i32x4, ["shl", "shr_u", "shr_s"], VI, "v128"),
  ...operations(
    w.i32x4,
    ["trunc_sat_f32x4_s", "extend_low_i16x8_s", "extend_high_i16x8_s"],
    V,
    "v128",
  ),
  ...lanes(w.i32x4, ["extract_lane"], "i32"),
};

export const f32x4 = {
  ...operations(w.f32x4, ["splat"], ["f32"], "v128"),
  ...operations(w.f32x4, ["add", "sub", "mul", "div", "min", "max", "pmin", "pmax"], VV, "v128"),
  ...operations(w.f32x4, ["eq", "ne", "lt", "gt", "le", "ge"], VV, "v128"),
  ...operations(w.f32x4, ["abs", "neg", "sqrt", "nearest", "floor", "trunc"], V, "v128"),
  ...operations(w.f32x4, ["convert_i32x4_s", "convert_i32x4_u"], V, "v128"),
  ...lanes(w.f32x4, ["extract_lane"], "f32"),
};

/** Four equal i32 lanes as a constant; takes no instruction at run time but the load of it. */
export function i32x4Const(value: number): Vector {
  return i32x4Lanes(value, value, value, value);
}

/** Four i32 lanes as a constant. Written by their bytes: wasmati refuses lanes from 2^31 on. */
export function i32x4Lanes(...lanes: readonly [number, number, number, number]): Vector {
  const bytes = lanes.flatMap((lane) => [0, 8, 16, 24].map((shift) => (lane >>> shift) & 0xff));
  return { type: "v128", emit: () => void (w.v128.const as Instruction)("i8x16", bytes) };
}

/** Eight equal i16 lanes as a constant. */
export function i16x8Const(value: number): Vector {
  return {
    type: "v128",
    emit: () =>
      void w.v128.const("i16x8", [value, value, value, value, value, value, value, value]),
  };
}

/** Four equal f32 lanes as a constant. */
export function f32x4Const(value: number): Vector {
  return {
    type: "v128",
    emit: () => void w.v128.const("f32x4", [value, value, value, value]),
  };
}

/** Four f32 lanes as a constant. */
export function f32x4Lanes(values: readonly [number, number, number, number]): Vector {
  return { type: "v128", emit: () => void w.v128.const("f32x4", [...values]) };
}

const atomic = w.i32.atomic;

/** Sequentially consistent operations on aligned i32 words. */
export const atomics = {
  load: (address: Int, offset = 0): Value<"i32"> => ({
    type: "i32",
    emit() {
      toValue("i32", address).emit();
      (atomic.load as Instruction)({ offset });
    },
  }),
  /** The old value; adds as a side effect, so emit it once. */
  add: (address: Int, offset: number, value: Int): Value<"i32"> => ({
    type: "i32",
    emit() {
      toValue("i32", address).emit();
      toValue("i32", value).emit();
      (atomic.rmw.add as Instruction)({ offset });
    },
  }),
  notifyAll: (address: Int, offset: number): Value<"i32"> => ({
    type: "i32",
    emit() {
      toValue("i32", address).emit();
      toValue("i32", -1).emit();
      (w.memory.atomic.notify as Instruction)({ offset });
    },
  }),
};

/** A select without a branch: `condition ? yes : no`. */
export function select<T extends Type>(condition: Int, yes: Value<T>, no: Value<T>): Value<T> {
  return {
    type: yes.type,
    emit() {
      yes.emit();
      no.emit();
      toValue("i32", condition).emit();
      // Not the typed form: wasmati wants its operands in an order that only i32 meets.
      w.select();
    },
  };
}
