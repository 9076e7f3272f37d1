import type { ParamOffsets } from "../abi.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import { i32 } from "./instructions.ts";
import type { Value, Variable } from "./value.ts";

/** What a kernel is given besides its parameters. */
export interface KernelContext<N extends string> {
  /** A parameter's word, as i32. */
  readonly param: (name: N) => Value<"i32">;
  /** Items begin..end-1 are this call's. */
  readonly begin: Variable<"i32">;
  readonly end: Variable<"i32">;
  /** Address of SCRATCH_BYTES that no other thread touches. */
  readonly scratch: Variable<"i32">;
}

/** A kernel: runs a range of its items. All have one signature, (params, begin, end, scratch). */
export function defineKernel<N extends string>(
  name: string,
  offsets: ParamOffsets<N>,
  body: (k: FunctionBody, context: KernelContext<N>) => void,
): Wasm {
  return define(name, ["i32", "i32", "i32", "i32"], (k, params, begin, end, scratch) => {
    body(k, { param: (name) => i32.load(params, offsets[name]), begin, end, scratch });
    return undefined;
  });
}
