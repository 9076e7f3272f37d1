import { KV_SPLIT } from "../abi.ts";
import { MAX_HEAD_DIM, UNIT_SLOTS } from "../attentionAbi.ts";
import type { FunctionBody } from "./emit.ts";
import { f32, v128 } from "./instructions.ts";
import type { Variable, Vector } from "./value.ts";

// What the functions of attention keep in a thread's scratch, in bytes from its start.

/** Query heads of a KV head that are computed together, at most: they share every load of K and V. */
export const MAX_PACK = 4;

/** Addresses of the range's units, and the last one's again. */
export const UNITS = 0; // [KV_SPLIT / UNIT_SLOTS + 1] i32

/** Scores of each head, then weights. */
export const SCORES = 64; // [MAX_PACK][KV_SPLIT] f32
export const SCORES_STRIDE = KV_SPLIT * 4;

/** Maximum of the scores, sum of the weights, factor on the result, 0 of each head. */
export const STATES = SCORES + MAX_PACK * SCORES_STRIDE; // [MAX_PACK][4] f32
export const STATE_BYTES = 16;

const CONSTANTS = STATES + MAX_PACK * STATE_BYTES; // [MAX_CONSTANTS] f32
const MAX_CONSTANTS = 32;

/** Queries of each head, scaled. */
export const QUERIES = CONSTANTS + MAX_CONSTANTS * 4; // [MAX_PACK][headDim] f32
// Not a power of two, so that the heads do not fall on the same lines of the cache.
export const QUERIES_STRIDE = (MAX_HEAD_DIM + 16) * 4;

if ((KV_SPLIT / UNIT_SLOTS + 1) * 4 > SCORES) throw new Error("The list of units is too long.");

/**
 * Constants of a loop, kept in the scratch: engines make a vector constant anew wherever it is used,
 * in three instructions; loading it is one.
 */
export class ConstantTable {
  readonly #values: number[] = [];

  /** A reader for one place in the code: each constant is loaded once there. */
  reader(k: FunctionBody, scratch: Variable<"i32">): (value: number) => Vector {
    const loaded = new Map<number, Vector>();
    return (value) => {
      const known = loaded.get(value) ?? k.let(v128.load32_splat(scratch, this.#offset(value)));
      loaded.set(value, known);
      return known;
    };
  }

  /** Writes what the functions defined so far read. */
  write(scratch: Variable<"i32">): void {
    if (this.#values.length > MAX_CONSTANTS) throw new Error("There are too many constants.");
    for (const value of this.#values) f32.store(scratch, this.#offset(value), value);
  }

  #offset(value: number): number {
    if (!this.#values.includes(value)) this.#values.push(value);
    return CONSTANTS + this.#values.indexOf(value) * 4;
  }
}
