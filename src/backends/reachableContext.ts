import type { PlanSpec } from "./ops.ts";

/**
 * Tokens that the longest sequence can really have: models declare contexts of any length, and a
 * sequence never outgrows the KV pool. Whatever a plan sizes by context is sized by this.
 */
export function reachableContext({
  maxContext,
  numBlocks,
  blockSize,
}: Pick<PlanSpec, "maxContext" | "numBlocks" | "blockSize">): number {
  return Math.min(maxContext, numBlocks * blockSize);
}
