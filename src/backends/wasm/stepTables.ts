import type { Step } from "../../engine/step.ts";
import { LOGITS_ROW_BYTES, sampleWords } from "./abi.ts";

/** Where the step's rows and lists lie in the memory. Byte addresses. */
export interface StepTables {
  /** [maxRows] rowWords */
  readonly rows: number;
  /** [maxSequences] sampleWords: samples, then scores */
  readonly samples: number;
  /** [maxSequences][LOGITS_ROW_BYTES]: the distinct rows of samples and scores, in the first word */
  readonly logitsRows: number;
  /** [maxItems] itemWords */
  readonly items: number;
  /** [maxRows] mergeWords */
  readonly merges: number;
  /** [maxRows][pairs]{cos, sin} */
  readonly rotations: number;
  /** [maxSequences][tableBlocks] */
  readonly blockTables: number;
  readonly tableBlocks: number;
}

/**
 * Writes a step's samples and scores. Rows that several of them name have their logits computed once.
 * Returns the number of distinct rows.
 */
export function writeSamples(
  { samples, scores }: Pick<Step, "samples" | "scores">,
  words: Int32Array,
  tables: Pick<StepTables, "samples" | "logitsRows">,
): number {
  const logitsOf = new Map<number, number>();
  const take = (row: number): number => {
    const known = logitsOf.get(row);
    if (known !== undefined) return known;
    const logits = logitsOf.size;
    logitsOf.set(row, logits);
    words[(tables.logitsRows + logits * LOGITS_ROW_BYTES) / 4] = row;
    return logits;
  };
  let at = tables.samples / 4;
  for (const { row, slot, position } of samples) {
    words[at + sampleWords.LOGITS] = take(row);
    words[at + sampleWords.SLOT] = slot;
    words[at + sampleWords.POSITION] = position;
    at += sampleWords.BYTES / 4;
  }
  for (const { row } of scores) {
    words[at + sampleWords.LOGITS] = take(row);
    at += sampleWords.BYTES / 4;
  }
  return logitsOf.size;
}
