import type { CostModel } from "../costModel.ts";
import { MAX_MODEL_TOKENS } from "./limits.ts";
import { numSequences, StaticBatch } from "./staticBatch.ts";

/**
 * FasterTransformer with the paper's scheduler around it: as many sequences as fit if each may grow to the
 * longest, the earliest first.
 */
export function createFasterTransformer({ model }: { readonly model: CostModel }): StaticBatch {
  const maxSequences = Math.floor(model.kvSlots / MAX_MODEL_TOKENS);
  return new StaticBatch(model, {
    id: "ft",
    canGrow: (batch, next) => numSequences(batch) + next.width <= maxSequences,
    contextFactor: 1,
    stepOverheadMs: 0,
  });
}
