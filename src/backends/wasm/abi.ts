/**
 * @file What TypeScript and the kernels agree on: fixed addresses, records in memory, the names of
 * parameters. Both sides take them from here. All records are 32-bit words, little-endian.
 */

/** Words that threads share, those that change in a step a cache line each. Byte addresses; 0 is never one. */
export const control = {
  /** Counts up when a program may be run: threads sleep on it. */
  EPOCH: 64,
  /** 1 while the program may be entered. */
  OPEN: 128,
  /** Threads inside the program. */
  ACTIVE: 192,
  /** The program: its address and its number of commands. */
  PROGRAM: 320,
  COMMANDS: 324,
} as const;

/** Counts of the step that runs: byte addresses of words, read by kernels. */
export const step = {
  ROWS: 256,
  /** Distinct rows whose logits are wanted. */
  LOGITS: 260,
  ITEMS: 264,
  MERGES: 268,
} as const;

/** First byte that is free for everything else. */
export const FIRST_FREE_ADDRESS = 1024;

/** Size of the function table that commands name kernels by. */
export const MAX_KERNELS = 64;

/**
 * A command: one kernel over `items` pieces of work, dealt out in `chunks` equal parts to whichever
 * thread comes first. Words of a record of 64 bytes.
 */
export const command = {
  KERNEL: 0, // index in the function table
  PARAMS: 1, // byte address of the kernel's parameters
  ITEMS: 2,
  CHUNKS: 3,
  NEXT: 4, // chunks taken
  DONE: 5, // chunks finished
  WAITERS: 6, // threads that sleep until all are finished
  BYTES: 64,
} as const;

/** Activations a record of quantised activations serves at once: rows are cut in panels of 8, 4, 2 and 1. */
export const PANEL_ROWS = [8, 4, 2, 1] as const;

/** Output rows of a tile of a packed matrix. */
export const TILE_ROWS = 8;

/** Words of a row of the step: see engine's StepRow; tokens are ids here. */
export const rowWords = { SLOT: 0, TOKEN: 1, POSITION: 2, KV_SLOT: 3, BYTES: 16 } as const;

/** Between entries of the list of rows whose logits are wanted; the first word is the row. */
export const LOGITS_ROW_BYTES = 16;

/**
 * A sample or score of the step. LOGITS counts the distinct rows whose logits are wanted: several
 * samples may be drawn from one. SLOT and POSITION (of the token to be sampled) are the samples' only.
 */
export const sampleWords = { LOGITS: 0, SLOT: 1, POSITION: 2, BYTES: 16 } as const;

/** A piece of attention: one row's query heads over one range of positions. */
export const itemWords = { ROW: 0, FIRST: 1, END: 2, PARTIAL: 3, BYTES: 16 } as const;

/** A row whose range was cut: its partial results, in ascending order of their ranges. */
export const mergeWords = { ROW: 0, FIRST_PARTIAL: 1, PARTIALS: 2, BYTES: 16 } as const;

/** Tokens of a range of positions that one attention item covers; ranges start at its multiples. */
export const KV_SPLIT = 64;

/** Bytes of a thread's own scratch, passed to every kernel. */
export const SCRATCH_BYTES = 64 * 1024;

/** Byte offset of each named parameter in a kernel's record. */
export type ParamOffsets<N extends string> = { readonly [K in N]: number };

/** Names of a kernel family's parameters, in the order of their words. */
export function paramOffsets<const N extends string>(names: readonly N[]): ParamOffsets<N> {
  return Object.fromEntries(names.map((name, i) => [name, i * 4])) as ParamOffsets<N>;
}
