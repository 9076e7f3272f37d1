import type { Backend, Plan, PlanSpec } from "../backends/ops.ts";
import { recordForward } from "../model/forward.ts";
import { type LoadProgress, loadWeights } from "../model/loadWeights.ts";
import type { Model } from "../model/model.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import type { ChosenBackend } from "./chooseBackend.ts";

/** What is placed: a model with the sizes that it runs with and the file that has its weights. */
export interface PlaceableModel {
  readonly model: Pick<Model, "tensors">;
  readonly spec: PlanSpec;
  readonly source: ByteSource;
}

/** A model on a back end, weights and KV pool: all that goes with a lost device. */
export interface Placement extends ChosenBackend {
  readonly plan: Plan;
}

/**
 * Compiles the model's forward pass on a back end and loads its weights. Throws what these throw, and what
 * `backend.lost` brings as soon as it does. What is allocated when it fails is freed with the back end.
 */
export async function placeModel(
  { model, spec, source }: PlaceableModel,
  { backend, reason }: ChosenBackend,
  signal: AbortSignal,
  onProgress?: (progress: LoadProgress) => void,
): Promise<Placement> {
  const loss = new AbortController();
  const anySignal = AbortSignal.any([signal, loss.signal]);
  const place = async (): Promise<Placement> => {
    const builder = backend.createPlanBuilder(spec);
    recordForward(builder, model);
    const plan = await builder.finish(anySignal);
    await loadWeights(plan, source, { signal: anySignal, ...(onProgress && { onProgress }) });
    return { backend, reason, plan };
  };
  return Promise.race([place(), rejectionOf(backend, loss)]);
}

/** Rejects when the back end is lost; what still works on it is aborted. */
async function rejectionOf(backend: Backend, loss: AbortController): Promise<never> {
  const error = await backend.lost;
  loss.abort(error);
  throw error;
}
