/** @file What the expressions of kernels are made of. */
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

export type Operand<T extends Type> =
  | Value<T>
  | (T extends "i32" | "f32" | "f64" ? number : T extends "i64" ? bigint : never);
type Operands<A extends readonly Type[]> = { [I in keyof A]: Operand<A[I]> };
export type Operation<A extends readonly Type[], R extends Type> = (
  ...operands: Operands<A>
) => Value<R>;

// wasmati's own types describe stack order; this layer is what gives operands their types.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Instruction = (...immediates: any[]) => unknown;

/** wasmati's name of a type. */
export const wasmTypes = { i32: w.i32, i64: w.i64, f32: w.f32, f64: w.f64, v128: w.v128 };

/** An operand as a value: numbers are constants. */
export function toValue<T extends Type>(type: T, operand: Operand<T>): Value<T> {
  if (typeof operand === "number" || typeof operand === "bigint") {
    const constant = (wasmTypes[type] as unknown as { const: Instruction }).const;
    return { type, emit: () => void constant(operand) };
  }
  return operand as Value<T>;
}
