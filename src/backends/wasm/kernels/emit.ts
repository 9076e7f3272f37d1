/**
 * @file Writing WebAssembly as expressions. A thin layer over wasmati, which writes instructions in
 * stack order: here an operation is a value that is emitted where it is used. Runs at build time only.
 *
 *   const sum = k.let(f32x4.add(a, f32x4.mul(b, c)));  // a new local
 *   k.store(v128.store, address, 16, sum);             // a statement
 */
import * as w from "wasmati";

export type Type = "i32" | "i64" | "f32" | "f64" | "v128";

/** Something that leaves one value on the stack. Emitted each time it is used: keep it in a local to use it twice. */
export interface Value<T extends Type = Type> {
  readonly type: T;
  emit(): void;
}

/** A local. */
export interface Variable<T extends Type = Type> extends Value<T> {
  readonly local: w.Local;
}

/** An i32 operand: plain numbers are constants. */
export type Int = Value<"i32"> | number;
/** An f32 operand: plain numbers are constants. */
export type Float = Value<"f32"> | number;
export type Vector = Value<"v128">;

type Operand<T extends Type> =
  | Value<T>
  | (T extends "i32" | "f32" | "f64" ? number : T extends "i64" ? bigint : never);
type Operands<A extends readonly Type[]> = { [I in keyof A]: Operand<A[I]> };
type Operation<A extends readonly Type[], R extends Type> = (...operands: Operands<A>) => Value<R>;

// wasmati's own types describe stack order; this layer is what gives operands their types.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Instruction = (...immediates: any[]) => unknown;
type WasmFunction = w.Dependency.AnyFunc;

const wasmTypes = { i32: w.i32, i64: w.i64, f32: w.f32, f64: w.f64, v128: w.v128 };

function toValue<T extends Type>(type: T, operand: Operand<T>): Value<T> {
  if (typeof operand === "number" || typeof operand === "bigint") {
    const constant = (wasmTypes[type] as unknown as { const: Instruction }).const;
    return { type, emit: () => void constant(operand) };
  }
  return operand as Value<T>;
}

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

/** A function under construction. */
export class FunctionBody {
  readonly #take: (type: Type) => w.Local;

  constructor(take: (type: Type) => w.Local) {
    this.#take = take;
  }

  /** A new local, set to `value`. */
  let<T extends Type>(value: Value<T>): Variable<T> {
    const local = this.#take(value.type);
    value.emit();
    w.local.set(local);
    return variable(local) as Variable<T>;
  }

  /** A new local; zero unless it was set before (a loop may come back here). */
  local<T extends Type>(type: T): Variable<T> {
    return variable(this.#take(type)) as Variable<T>;
  }

  set<T extends Type>(target: Variable<T>, value: Operand<T>): void {
    toValue(target.type, value).emit();
    w.local.set(target.local);
  }

  /** Evaluates for the side effect. */
  run(value: Value): void {
    value.emit();
    w.drop();
  }

  if(condition: Int, then: () => void, otherwise?: () => void): void {
    toValue("i32", condition).emit();
    if (otherwise) w.if_({}, then, otherwise);
    else w.if_({}, then);
  }

  /** Runs the body while the condition holds; tests first. */
  while(condition: () => Int, body: () => void): void {
    w.block({}, (end) => {
      w.loop({}, (again) => {
        toValue("i32", i32.eqz(condition())).emit();
        w.br_if(end);
        body();
        w.br(again);
      });
    });
  }

  /** Runs the body until the condition, tested after it, fails. At least once. */
  doWhile(body: () => void, condition: () => Int): void {
    w.loop({}, (again) => {
      body();
      toValue("i32", condition()).emit();
      w.br_if(again);
    });
  }

  /** for (i = start; i < end; i += step), signed. */
  for(start: Int, end: Int, step: Int, body: (i: Variable<"i32">) => void): void {
    const i = this.let(toValue("i32", start));
    this.while(
      () => i32.lt_s(i, end),
      () => {
        body(i);
        this.set(i, i32.add(i, step));
      },
    );
  }

  /** Calls a function that returns nothing. */
  call(target: Wasm, ...args: readonly Operand<Type>[]): void {
    for (const [i, type] of target.args.entries()) toValue(type, args[i]!).emit();
    (w.call as Instruction)(target.func);
  }

  /** The value of a call. */
  callFor<R extends Type>(target: Wasm, result: R, ...args: readonly Operand<Type>[]): Value<R> {
    return { type: result, emit: () => this.call(target, ...args) };
  }

  return(value?: Value): void {
    value?.emit();
    w.return_();
  }
}

/** A finished function. */
export interface Wasm {
  readonly name: string;
  readonly args: readonly Type[];
  readonly func: WasmFunction;
}

function variable(local: w.Local): Variable {
  return { type: local.type as Type, local, emit: () => void w.local.get(local) };
}

/**
 * Makes a function. The body runs twice: once to count its locals, once for good; it must do the
 * same both times. A value that it returns is the function's result.
 */
export function define<const A extends readonly Type[]>(
  name: string,
  args: A,
  body: (k: FunctionBody, ...args: { [I in keyof A]: Variable<A[I]> }) => Value | undefined,
): Wasm {
  const counts: Record<Type, number> = { i32: 0, i64: 0, f32: 0, f64: 0, v128: 0 };
  let result: Type | undefined;
  const build = (pool: Readonly<Record<Type, number>>): WasmFunction => {
    const types = (Object.keys(pool) as Type[]).flatMap((type) =>
      Array.from({ length: pool[type] }, () => type),
    );
    const signature = {
      in: args.map((type) => wasmTypes[type]),
      locals: types.map((type) => wasmTypes[type]),
      out: result === undefined ? [] : [wasmTypes[result]],
    };
    const used: Record<Type, number> = { i32: 0, i64: 0, f32: 0, f64: 0, v128: 0 };
    const func = (w.func as unknown as Instruction)(
      signature,
      (params: w.Local[], locals: w.Local[]) => {
        const take = (type: Type): w.Local => {
          const index = types.indexOf(type) + used[type]++;
          counts[type] = Math.max(counts[type], used[type]);
          if (used[type] > pool[type]) throw new Error(`${name}: too many locals of type ${type}`);
          return locals[index]!;
        };
        const values = params.map(variable) as { [I in keyof A]: Variable<A[I]> };
        const value = body(new FunctionBody(take), ...values);
        if (result === undefined && value !== undefined) {
          result = value.type;
          return;
        }
        value?.emit();
      },
    );
    return func as WasmFunction;
  };
  build({ i32: 200, i64: 50, f32: 100, f64: 20, v128: 2000 });
  return { name, args, func: build({ ...counts }) };
}
