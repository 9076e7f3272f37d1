import type { PlanSpec } from "../ops.ts";
import type { BufferLimits } from "./limits.ts";
import { maxSplits } from "./stepBuffer.ts";

/** Tokens that an attention thread scores at a time: SPAN of shaders/attention.wgsl. */
export const ATTENTION_SPAN = 4;

/** Most bytes of partial attention states: bounds the rows of a step over long contexts. */
const MAX_PARTIAL_BYTES = 64 * 2 ** 20;

/** Most query heads that an attention thread packs. */
const MAX_PACKED_HEADS = 7;

/** Rows that a step may have, and the bytes of their attention's outputs with the partial states behind them. */
export interface AttentionMemory {
  readonly maxRows: number;
  readonly mixedBytes: number;
}

/** As many rows as wanted and as partial states have room for, were each at the end of its context. */
export function attentionMemory(
  spec: Pick<PlanSpec, "numHeads" | "headDim" | "maxContext" | "maxRows">,
  { maxBindingBytes }: BufferLimits,
): AttentionMemory {
  const { numHeads, headDim, maxContext, maxRows: wanted } = spec;
  const partialBytes = maxSplits(maxContext) * numHeads * (headDim + 4) * 4; // a row's
  const room = Math.floor(Math.min(MAX_PARTIAL_BYTES, maxBindingBytes) / partialBytes);
  const maxRows = Math.max(1, Math.min(wanted, room));
  return { maxRows, mixedBytes: maxRows * (numHeads * headDim * 4 + partialBytes) };
}

/** Query heads of a thread: a divisor of the group that shares a KV head. */
export function packedHeads(groupSize: number): number {
  let pack = Math.min(groupSize, MAX_PACKED_HEADS);
  while (groupSize % pack !== 0) pack--;
  return pack;
}
