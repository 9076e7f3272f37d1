import { invariant, throwIfAborted } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Activation, Linear, Plan, PlanBuilder, PlanSpec } from "../ops.ts";
import { add, attention, linear, rmsNorm, rope, silu } from "./kernels.ts";
import { type Op, ReferencePlan, type StepContext } from "./plan.ts";

/** Rows of an activation in the step that runs. [rows][width] */
class Rows implements Activation {
  readonly width: number;
  values: readonly Float64Array[] = [];

  constructor(width: number) {
    this.width = width;
  }
}

/** Records ops as functions, one call each a step. */
export class ReferencePlanBuilder implements PlanBuilder {
  readonly #spec: PlanSpec;
  readonly #onPlan: (plan: ReferencePlan) => void;
  readonly #ops: Op[] = [];
  readonly #tensors: TensorInfo[] = [];

  constructor(spec: PlanSpec, onPlan: (plan: ReferencePlan) => void) {
    this.#spec = spec;
    this.#onPlan = onPlan;
  }

  embed(table: TensorInfo): Activation {
    const { width } = this.#spec;
    return this.#record(width, [table], ({ weights, rows }) => {
      const values = weights.get(table);
      return rows.map(({ token }) =>
        Float64Array.from(values.subarray(token * width, (token + 1) * width)),
      );
    });
  }

  normLinear(x: Activation, norm: TensorInfo, linears: readonly Linear[]): Activation {
    const width = linears.reduce((sum, { weight }) => sum + weight.rows, 0);
    const tensors = [norm, ...linears.flatMap(tensorsOf)];
    return this.#record(width, tensors, (step) =>
      rowsOf(x).map((row) => {
        const normed = rmsNorm(row, step.weights.get(norm), this.#spec.rmsEpsilon); // [width]
        return concatenate(linears.map((layer) => apply(step, layer, normed)));
      }),
    );
  }

  ropeWriteKv(
    layer: number,
    qkv: Activation,
    headNorms: { readonly q: TensorInfo; readonly k: TensorInfo } | undefined,
  ): Activation {
    const { numHeads, numKvHeads, headDim, rope: ropeSpec, rmsEpsilon } = this.#spec;
    invariant(
      qkv.width === (numHeads + 2 * numKvHeads) * headDim,
      `ropeWriteKv takes q, k and v of all heads; found ${qkv.width} values.`,
    );
    const tensors = headNorms ? [headNorms.q, headNorms.k] : [];
    return this.#record(numHeads * headDim, tensors, ({ rows, pool, weights }) => {
      const turn = (head: Float64Array, norm: TensorInfo | undefined, position: number) =>
        rope(norm ? rmsNorm(head, weights.get(norm), rmsEpsilon) : head, position, ropeSpec);
      return rowsOf(qkv).map((row, i) => {
        const { position, kvSlot } = rows[i]!;
        const head = (index: number) => row.subarray(index * headDim, (index + 1) * headDim);
        for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
          const k = turn(head(numHeads + kvHead), headNorms?.k, position);
          const v = head(numHeads + numKvHeads + kvHead);
          pool.write(layer, kvSlot, "k", kvHead, k);
          pool.write(layer, kvSlot, "v", kvHead, v);
        }
        const q = Array.from({ length: numHeads }, (_, h) => turn(head(h), headNorms?.q, position));
        return concatenate(q);
      });
    });
  }

  attention(layer: number, q: Activation): Activation {
    const { numHeads, numKvHeads, headDim } = this.#spec;
    return this.#record(numHeads * headDim, [], ({ rows, pool }) =>
      rowsOf(q).map((row, i) => {
        const { slot, position } = rows[i]!;
        const heads = Array.from({ length: numHeads }, (_, h) => {
          const kvHead = Math.floor(h / (numHeads / numKvHeads)); // adjacent q heads share one
          const keys = pool.read(layer, slot, position, "k", kvHead);
          const values = pool.read(layer, slot, position, "v", kvHead);
          return attention(row.subarray(h * headDim, (h + 1) * headDim), keys, values);
        });
        return concatenate(heads);
      }),
    );
  }

  linearAdd(x: Activation, y: Activation, layer: Linear): Activation {
    return this.#record(x.width, tensorsOf(layer), (step) =>
      rowsOf(x).map((row, i) => add(row, apply(step, layer, rowsOf(y)[i]!))),
    );
  }

  gatedMlp(x: Activation, norm: TensorInfo, gate: Linear, up: Linear, down: Linear): Activation {
    const tensors = [norm, ...[gate, up, down].flatMap(tensorsOf)];
    return this.#record(x.width, tensors, (step) =>
      rowsOf(x).map((row) => {
        const normed = rmsNorm(row, step.weights.get(norm), this.#spec.rmsEpsilon); // [width]
        const gated = apply(step, gate, normed).map(silu); // [ffnWidth]
        const hidden = apply(step, up, normed).map((value, i) => value * gated[i]!); // [ffnWidth]
        return add(row, apply(step, down, hidden));
      }),
    );
  }

  sampleLogits(x: Activation, norm: TensorInfo, head: TensorInfo): void {
    this.#tensors.push(norm, head);
    this.#ops.push((step) => {
      step.logits = [...step.samples, ...step.scores].map(({ row }) => {
        const normed = rmsNorm(rowsOf(x)[row]!, step.weights.get(norm), this.#spec.rmsEpsilon);
        return Float32Array.from(linear(step.weights.get(head), normed)); // [vocabularySize]
      });
    });
  }

  async finish(signal?: AbortSignal): Promise<Plan> {
    throwIfAborted(signal, "Making the plan");
    const plan = new ReferencePlan(this.#spec, this.#ops, this.#tensors);
    this.#onPlan(plan);
    return plan;
  }

  #record(
    width: number,
    tensors: readonly TensorInfo[],
    run: (step: StepContext) => readonly Float64Array[],
  ): Activation {
    const result = new Rows(width);
    this.#tensors.push(...tensors);
    this.#ops.push((step) => {
      result.values = run(step);
    });
    return result;
  }
}

function rowsOf(activation: Activation): readonly Float64Array[] {
  invariant(activation instanceof Rows, "The activation belongs to another back end.");
  return activation.values;
}

function tensorsOf({ weight, bias }: Linear): readonly TensorInfo[] {
  return bias ? [weight, bias] : [weight];
}

function apply({ weights }: StepContext, { weight, bias }: Linear, x: Float64Array): Float64Array {
  return linear(weights.get(weight), x, bias && weights.get(bias));
}

function concatenate(parts: readonly Float64Array[]): Float64Array {
  const whole = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
