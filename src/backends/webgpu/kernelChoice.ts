import type { AdapterSummary } from "../ops.ts";

/**
 * How the kernels that most time goes into use the adapter.
 * - `flat`: a thread makes its outputs alone, without barriers, which cost software adapters more than the work.
 * - `workgroup`: the threads of a workgroup share what is one thread's in `flat`, so that a few rows keep a GPU
 *   busy: attention's tokens and dimensions, and K of matrices with few outputs.
 */
export type KernelFamily = "flat" | "workgroup";

/** Rows that one thread of a linear kernel takes: variants that give the same bits, if the adapter is right. */
export const LINEAR_TOKENS = [1, 2, 4, 8] as const;

export type LinearTokens = (typeof LINEAR_TOKENS)[number];

/** Which of the kernels that do the same work a plan uses. Results differ between families, in their last bits. */
export interface KernelChoice {
  readonly family: KernelFamily;
  /** Variants of the linear kernels, ascending: a step uses the smallest that covers its rows, else the largest. */
  readonly linearTokens: readonly LinearTokens[];
}

/** The family for an adapter. No timing decides: the same adapter always computes the same bits. */
export function familyFor({ isFallback }: AdapterSummary): KernelFamily {
  return isFallback ? "flat" : "workgroup";
}
