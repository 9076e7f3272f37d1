import { MAX_LOGIT_BIAS } from "../../../engine/sampling.ts";
import { slotFlags, slotWords } from "../../slotRecord.ts";
import { sampleWords } from "../abi.ts";
import { CHUNK_TOKENS, type sampleParams } from "../samplerAbi.ts";
import type { FunctionBody } from "./emit.ts";
import {
  f32,
  f32x4,
  f32x4Const,
  i32,
  i32x4,
  i32x4Const,
  i32x4Lanes,
  v128,
} from "./instructions.ts";
import type { KernelContext } from "./kernel.ts";
import { maxOfLanes, swapHalves, swapPairs } from "./math.ts";
import type { Int, Value, Variable, Vector } from "./value.ts";

export type SampleContext = KernelContext<keyof typeof sampleParams>;

/** Below every score; finite, as on the GPU. */
export const NO_VALUE = -3.4e38;
/** Logits are held to +-LOGIT_LIMIT, so that no product with an inverse temperature overflows. */
const LOGIT_LIMIT = 1e8;
/** The order of the least float: nothing lies below it. */
export const LEAST_ORDER = -(2 ** 31);

/** A sample of the step, and its slot. */
export interface SampleState {
  readonly position: Value<"i32">;
  /** Address of the slot's record, and what it says. */
  readonly record: Variable<"i32">;
  word(name: keyof typeof slotWords): Value<"i32">;
  float(name: keyof typeof slotWords): Value<"f32">;
  has(flag: keyof typeof slotFlags): Value<"i32">;
  /** Addresses of the sample's rows, at token 0. */
  readonly logits: Value<"i32">;
  readonly scaled: Value<"i32">;
  readonly tokenState: Value<"i32">;
  readonly biases: Value<"i32">;
}

export function sampleState(
  k: FunctionBody,
  context: SampleContext,
  sample: Variable<"i32">,
): SampleState {
  const { param } = context;
  const entry = k.let(i32.add(param("SAMPLES"), i32.mul(sample, sampleWords.BYTES)));
  const slot = k.let(i32.load(entry, sampleWords.SLOT * 4));
  const record = k.let(
    i32.add(param("SLOT_RECORDS"), i32.mul(slot, i32.const(slotWords.SLOT_WORDS * 4))),
  );
  const row = (base: Value<"i32">, at: Int, stride: Int): Value<"i32"> =>
    i32.add(base, i32.mul(at, stride));
  return {
    position: i32.load(entry, sampleWords.POSITION * 4),
    record,
    word: (name) => i32.load(record, slotWords[name] * 4),
    float: (name) => f32.load(record, slotWords[name] * 4),
    has: (flag) => i32.and(i32.load(record, slotWords.SLOT_FLAGS * 4), slotFlags[flag]),
    logits: logitsOf(context, sample),
    scaled: row(param("SCALED"), sample, param("TOKEN_STRIDE")),
    tokenState: row(param("TOKEN_STATE"), slot, param("TOKEN_STRIDE")),
    biases: row(param("BIASES"), slot, MAX_LOGIT_BIAS * 8),
  };
}

/** Address of the logits of a sample or a score, at token 0. */
export function logitsOf({ param }: SampleContext, place: Variable<"i32">): Value<"i32"> {
  const entry = i32.add(param("SAMPLES"), i32.mul(place, sampleWords.BYTES));
  const row = i32.load(entry, sampleWords.LOGITS * 4);
  return i32.add(param("LOGITS"), i32.mul(row, param("LOGITS_STRIDE")));
}

/** A chunk's tokens are first..end-1. */
export interface Chunk {
  readonly first: Variable<"i32">;
  readonly end: Variable<"i32">;
}

export function chunkOf(k: FunctionBody, { param }: SampleContext, chunk: Int): Chunk {
  const first = k.let(i32.mul(chunk, CHUNK_TOKENS));
  const end = k.let(i32.add(first, CHUNK_TOKENS));
  k.if(i32.gt_u(end, param("VOCABULARY")), () => k.set(end, param("VOCABULARY")));
  return { first, end };
}

/** Runs the body for every item of [places][chunks]. */
export function forChunks(
  k: FunctionBody,
  context: SampleContext,
  body: (place: Variable<"i32">, chunk: Chunk, item: Variable<"i32">) => void,
): void {
  const { param, begin, end } = context;
  k.for(begin, end, 1, (item) => {
    const place = k.let(i32.div_u(item, param("CHUNKS")));
    body(place, chunkOf(k, context, i32.rem_u(item, param("CHUNKS"))), item);
  });
}

/** Runs the body for four tokens at a time: their ids, and the byte offset of the first in a row. */
export function forTokens(
  k: FunctionBody,
  { first, end }: Chunk,
  body: (ids: Variable<"v128">, offset: Variable<"i32">) => void,
): void {
  const ids = k.let(i32x4.add(i32x4.splat(first), i32x4Lanes(0, 1, 2, 3)));
  k.for(first, end, 4, (token) => {
    body(ids, k.let(i32.shl(token, 2)));
    k.set(ids, i32x4.add(ids, i32x4Const(4)));
  });
}

/** Logits within +-LOGIT_LIMIT; what is not a number is the least. */
export function hold(x: Vector): Vector {
  return f32x4.pmin(f32x4.pmax(f32x4Const(-LOGIT_LIMIT), x), f32x4Const(LOGIT_LIMIT));
}

/** Signed integers in the order of the floats. -0 comes right before 0: add 0 where they are to tie. */
export function orderOf(x: Variable<"v128">): Vector {
  return v128.xor(x, i32x4.shr_u(i32x4.shr_s(x, 31), 1));
}

/** The same of one float. */
export function orderOfFloat(k: FunctionBody, x: Value<"f32">): Value<"i32"> {
  const bits = k.let(i32.reinterpret_f32(x));
  return i32.xor(bits, i32.shr_u(i32.shr_s(bits, 31), 1));
}

/** Stores the largest of four values and its id, ties to the lowest. No value may be NaN. */
export function storeBest(
  k: FunctionBody,
  values: Variable<"v128">,
  ids: Variable<"v128">,
  record: Variable<"i32">,
  valueWord: number,
  idWord: number,
): void {
  const best = maxOfLanes(k, values);
  const least = k.let(v128.bitselect(ids, i32x4Const(0x7fffffff), f32x4.eq(values, best)));
  k.set(least, i32x4.min_s(least, swapHalves(least)));
  k.set(least, i32x4.min_s(least, swapPairs(least)));
  f32.store(record, valueWord * 4, f32x4.extract_lane(best, 0));
  i32.store(record, idWord * 4, i32x4.extract_lane(least, 0));
}
