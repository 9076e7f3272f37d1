/** Where the step's rows and lists lie in the memory. Byte addresses. */
export interface StepTables {
  /** [maxRows] rowWords */
  readonly rows: number;
  /** [maxSequences]{row, slot, position, 0}: samples, then scores, of which only the row */
  readonly samples: number;
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
