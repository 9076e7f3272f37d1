import type { KernelChoice, LinearTokens } from "./kernelChoice.ts";
import type { PackedMatrix } from "./packedMatrix.ts";

/** Blocks of 32 along K that share an accumulator (shaders/linear.wgsl). Part of the numeric scheme. */
export const CHUNK_BLOCKS = 8;

/** Threads that a GPU should have to do. A choice, not measured. */
const WANTED_THREADS = 8192;

/** Most threads that share K. */
const MAX_SLICES = 8;

/** Rows that a thread with a slice of K takes at most: more take many registers, and long to compile. */
const MAX_SLICED_TOKENS = 4;

/** A kernel of a matrix. All that a matrix has give the same bits, so that a step may take any. */
export interface LinearVariant {
  /** Rows a thread. */
  readonly tokens: LinearTokens;
  /** Threads that share K. */
  readonly slices: number;
}

/**
 * Threads that share K of a matrix with so few outputs that a row would not keep a GPU busy. Of the whole matrix,
 * not of a window: windows of a matrix give the bits that it gives whole.
 */
export function slicesFor(
  { family }: KernelChoice,
  { rows, numParts, columns }: PackedMatrix,
): number {
  if (family === "flat") return 1;
  const groups = (rows * numParts) / 4;
  const most = Math.min(MAX_SLICES, columns / 32 / CHUNK_BLOCKS);
  let slices = 1;
  while (slices < most && groups * slices < WANTED_THREADS) slices *= 2;
  return slices;
}

/** Those with slices, then those without, ascending in tokens; beside slices, one without for steps of many rows. */
export function variantsFor(
  { linearTokens }: KernelChoice,
  slices: number,
): readonly LinearVariant[] {
  const plain = linearTokens.map((tokens) => ({ tokens, slices: 1 }));
  if (slices === 1) return plain;
  const few = linearTokens.filter((tokens) => tokens <= MAX_SLICED_TOKENS);
  return [...few.map((tokens) => ({ tokens, slices })), plain.at(-1)!];
}

/**
 * What a step of `rows` takes of a matrix with `groups` of 4 outputs: the variant of the fewest tokens that covers
 * the rows, else of the most; with slices where it would have too few threads without.
 */
export function variantOf<T extends LinearVariant>(
  variants: readonly T[],
  rows: number,
  groups: number,
): T {
  const firstPlain = variants.findIndex(({ slices }) => slices === 1);
  const numThreads = groups * Math.ceil(rows / variants.at(-1)!.tokens);
  const isSliced = firstPlain > 0 && numThreads < WANTED_THREADS;
  const end = isSliced ? firstPlain : variants.length;
  for (let i = isSliced ? 0 : firstPlain; i < end; i++) {
    if (variants[i]!.tokens >= rows) return variants[i]!;
  }
  return variants[end - 1]!;
}
