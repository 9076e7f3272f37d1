import type { PlanBuilder } from "../backends/ops.ts";
import type { Model } from "./model.ts";

/**
 * The forward pass of every architecture that Quire runs: a pre-norm transformer with grouped-query
 * attention, rotary positions and a gated MLP. Recorded once; a plan then runs it for all rows of a
 * step. Ends the builder's pass; call `builder.finish` next.
 */
export function recordForward(builder: PlanBuilder, model: Pick<Model, "tensors">): void {
  const { embedding, layers, outputNorm, head } = model.tensors;

  let x = builder.embed(embedding); // [width]

  for (const [index, layer] of layers.entries()) {
    // attention: every token looks at itself and the tokens before it
    const qkv = builder.normLinear(x, layer.attentionNorm, [layer.q, layer.k, layer.v]); // [(numHeads + 2 numKvHeads) headDim]
    const q = builder.ropeWriteKv(index, qkv, layer.headNorms); // [numHeads headDim]; k, v -> pool
    const mixed = builder.attention(index, q); // [numHeads headDim]
    x = builder.linearAdd(x, mixed, layer.attentionOutput); // [width]

    // feed-forward: every token by itself
    x = builder.gatedMlp(x, layer.ffnNorm, layer.gate, layer.up, layer.down); // [width]
  }

  builder.sampleLogits(x, outputNorm, head); // [vocabularySize] -> one token id a sampled row
}
