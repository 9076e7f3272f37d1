import type { Linear } from "../../src/backends/ops.ts";
import type { Model } from "../../src/model/model.ts";
import type { TensorInfo } from "../../src/weights/tensorType.ts";

/** Linear layers of one input, as the groups whose members a back end stacks to one matrix. */
export type StackLinears = (weights: readonly TensorInfo[]) => readonly (readonly TensorInfo[])[];

/** Tensors of the model's matrices in the order of a step, stacked as the back end stacks them. */
export function matricesOf(
  { tensors }: Pick<Model, "tensors">,
  stack: StackLinears,
): readonly (readonly TensorInfo[])[] {
  const stackWeights = (...linears: readonly Linear[]) =>
    stack(linears.map(({ weight }) => weight));
  const layers = tensors.layers.flatMap((layer) => [
    ...stackWeights(layer.q, layer.k, layer.v),
    ...stackWeights(layer.attentionOutput),
    ...stackWeights(layer.gate, layer.up),
    ...stackWeights(layer.down),
  ]);
  return [...layers, [tensors.head]];
}
