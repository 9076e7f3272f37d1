import type { CostModel } from "../costModel.ts";
import type { LabRequest } from "../workloads.ts";
import { MAX_MODEL_TOKENS } from "./limits.ts";
import { numSequences, StaticBatch } from "./staticBatch.ts";

/**
 * Hugging Face Transformers concatenates a step's K and V to the old ones: attention's read becomes a read,
 * a write and a read.
 */
const CONTEXT_FACTOR = 3;

/** Python and unfused kernels of a layer and step, in milliseconds. An estimate: 0.5 ms a layer. */
const LAYER_OVERHEAD_MS = 0.5;

/**
 * Hugging Face Transformers as vLLM's throughput benchmark runs it: in order of arrival, a batch grows
 * while it is below its limit and the longest prompt and the longest answer, the next one's included, have
 * at most 2048 tokens together. The limit is what memory holds at that length, the concatenated copy
 * of one layer aside.
 */
export function createHf({ model }: { readonly model: CostModel }): StaticBatch {
  const maxSequences = Math.max(1, Math.floor(model.kvSlots / MAX_MODEL_TOKENS));
  return new StaticBatch(model, {
    id: "hf",
    canGrow: (batch, next) =>
      numSequences(batch) + next.width <= maxSequences &&
      padded([...batch, next]) <= MAX_MODEL_TOKENS,
    contextFactor: CONTEXT_FACTOR,
    stepOverheadMs: LAYER_OVERHEAD_MS * model.numLayers,
  });
}

function padded(batch: readonly LabRequest[]): number {
  const maxPrompt = Math.max(...batch.map(({ promptTokens }) => promptTokens));
  return maxPrompt + Math.max(...batch.map(({ outputTokens }) => outputTokens));
}
