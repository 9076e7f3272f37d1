/**
 * @file Writing WebAssembly as expressions. A thin layer over wasmati, which writes instructions in
 * stack order: here an operation is a value that is emitted where it is used. Runs at build time only.
 *
 *   const sum = k.let(f32x4.add(a, f32x4.mul(b, c)));  // a new local
 *   k.store(v128.store, address, 16, sum);             // a statement
 */
import * as w from "wasmati";
import { i32 } from "./instructions.ts";
import {
  type Instruction,
  type Int,
  type Operand,
  type Type,
  toValue,
  type Value,
  type Variable,
  wasmTypes,
} from "./value.ts";

type WasmFunction = w.Dependency.AnyFunc;

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
