import type { StepRow } from "../../engine/step.ts";
import { itemWords, KV_SPLIT, mergeWords } from "./abi.ts";
import { NO_PARTIAL, PARTIAL_STATE_BYTES } from "./attentionAbi.ts";

/** Ranges of positions that a row at the last position of a context has. */
function numRanges(context: number): number {
  return Math.ceil(context / KV_SPLIT);
}

/** Most attention items of a step. */
export function maxItems(maxRows: number, maxContext: number): number {
  return maxRows * numRanges(maxContext);
}

/** Most partial results of a step: rows of a single range have none. */
export function maxPartials(maxRows: number, maxContext: number): number {
  return maxContext > KV_SPLIT ? maxItems(maxRows, maxContext) : 0;
}

/** Bytes of one partial result: all heads of one range of one row. */
export function partialBytes(numHeads: number, headDim: number): number {
  return numHeads * (PARTIAL_STATE_BYTES + headDim * 4);
}

/**
 * Rows that a step may have if their partial results shall never take more than `bytes`: memory for
 * the worst case, every row at the end of its context, is reserved once. At least 1.
 */
export function maxRowsFor(
  bytes: number,
  maxContext: number,
  numHeads: number,
  headDim: number,
): number {
  const bytesPerRow = maxPartials(1, maxContext) * partialBytes(numHeads, headDim);
  return bytesPerRow === 0 ? Infinity : Math.max(1, Math.floor(bytes / bytesPerRow));
}

/**
 * Writes the attention items and the merges of a step into a memory's words. Addresses are in bytes.
 *
 * A row's ranges start at multiples of KV_SPLIT, whatever else is in the step. Items of one range of
 * one sequence are adjacent, so that its K and V are in the cache for all rows but the first.
 * Partials are numbered row by row.
 */
export function writeWorkList(
  rows: readonly StepRow[],
  words: Int32Array,
  itemsAddress: number,
  mergesAddress: number,
): { readonly items: number; readonly merges: number } {
  let item = itemsAddress / 4;
  let merge = mergesAddress / 4;
  let partials = 0;
  for (let start = 0, end = 0; start < rows.length; start = end) {
    const { slot } = rows[start]!;
    while (end < rows.length && rows[end]!.slot === slot) end++;
    item = writeItems(rows, start, end, partials, words, item);
    for (let row = start; row < end; row++) {
      const ranges = numRanges(rows[row]!.position + 1);
      if (ranges === 1) continue;
      words[merge + mergeWords.ROW] = row;
      words[merge + mergeWords.FIRST_PARTIAL] = partials;
      words[merge + mergeWords.PARTIALS] = ranges;
      merge += mergeWords.BYTES / 4;
      partials += ranges;
    }
  }
  return {
    items: (item * 4 - itemsAddress) / itemWords.BYTES,
    merges: (merge * 4 - mergesAddress) / mergeWords.BYTES,
  };
}

/** Items of rows start..end-1, which are of one sequence and ascend in position. Returns the next free word. */
function writeItems(
  rows: readonly StepRow[],
  start: number,
  end: number,
  firstPartial: number,
  words: Int32Array,
  item: number,
): number {
  const last = rows[end - 1]!.position;
  for (let first = 0; first <= last; first += KV_SPLIT) {
    let partial = firstPartial; // of the row's first range
    for (let row = start; row < end; row++) {
      const visible = rows[row]!.position + 1;
      const ranges = numRanges(visible);
      if (visible > first) {
        words[item + itemWords.ROW] = row;
        words[item + itemWords.FIRST] = first;
        words[item + itemWords.END] = Math.min(visible, first + KV_SPLIT);
        words[item + itemWords.PARTIAL] = ranges === 1 ? NO_PARTIAL : partial + first / KV_SPLIT;
        item += itemWords.BYTES / 4;
      }
      if (ranges > 1) partial += ranges;
    }
  }
  return item;
}
