import { invariant, throwIfAborted } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Activation, Linear, Plan, PlanBuilder, PlanSpec } from "../ops.ts";
import { Arena } from "./arena.ts";
import { kernelNames } from "./kernelModule.ts";
import { allocateMemory, MAX_MEMORY_BYTES, outOfMemory } from "./memory.ts";
import type { BuilderContext } from "./options.ts";
import { type PlanParts, WasmPlan } from "./plan.ts";
import { Recorder } from "./recorder.ts";
import { Threads } from "./threads.ts";

/** Ops by name, to be recorded when the size of the KV pool is known. */
type RecordedOp = (recorder: Recorder) => void;

/**
 * Takes down the forward pass; `finish` lays it out, once for each size of the pool that it tries.
 * Ops find their inputs by place: there is one stream, and one region each for what `normLinear`,
 * `ropeWriteKv` and `attention` return, to be used before the next op of that kind.
 */
export class WasmPlanBuilder implements PlanBuilder {
  readonly #spec: PlanSpec;
  readonly #context: BuilderContext;
  readonly #onPlan: (plan: WasmPlan, parts: PlanParts) => void;
  readonly #ops: RecordedOp[] = [];

  /** `onPlan` also gets what the plan is made of, which measurements look into. */
  constructor(
    spec: PlanSpec,
    context: BuilderContext,
    onPlan: (plan: WasmPlan, parts: PlanParts) => void,
  ) {
    this.#spec = spec;
    this.#context = context;
    this.#onPlan = onPlan;
  }

  embed(table: TensorInfo): Activation {
    this.#ops.push((recorder) => recorder.embed(table));
    return { width: this.#spec.width };
  }

  normLinear(_x: Activation, norm: TensorInfo, linears: readonly Linear[]): Activation {
    this.#ops.push((recorder) => recorder.normLinear(norm, linears));
    return { width: linears.reduce((sum, { weight }) => sum + weight.rows, 0) };
  }

  ropeWriteKv(
    layer: number,
    qkv: Activation,
    headNorms: { readonly q: TensorInfo; readonly k: TensorInfo } | undefined,
  ): Activation {
    const { numHeads, numKvHeads, headDim } = this.#spec;
    invariant(
      qkv.width === (numHeads + 2 * numKvHeads) * headDim,
      `ropeWriteKv takes q, k and v of all heads; found ${qkv.width} values.`,
    );
    this.#ops.push((recorder) => recorder.ropeWriteKv(layer, headNorms));
    return { width: numHeads * headDim };
  }

  attention(layer: number, q: Activation): Activation {
    this.#ops.push((recorder) => recorder.attention(layer));
    return { width: q.width };
  }

  linearAdd(x: Activation, _y: Activation, linear: Linear): Activation {
    this.#ops.push((recorder) => recorder.linearAdd(linear));
    return x;
  }

  gatedMlp(x: Activation, norm: TensorInfo, gate: Linear, up: Linear, down: Linear): Activation {
    this.#ops.push((recorder) => recorder.gatedMlp(norm, gate, up, down));
    return x;
  }

  sampleLogits(_x: Activation, norm: TensorInfo, head: TensorInfo): void {
    this.#ops.push((recorder) => recorder.sampleLogits(norm, head));
  }

  async finish(signal?: AbortSignal): Promise<Plan> {
    const { recorder, memory } = this.#allocate();
    const { kernels, threads: numThreads, openThreads } = this.#context;
    const ports = numThreads > 1 ? await openThreads(numThreads - 1, signal) : [];
    let threads: Threads | undefined;
    try {
      throwIfAborted(signal, "Loading the model");
      const { scratches } = recorder;
      threads = await Threads.start(ports, { modules: kernels.modules, memory, scratches }, signal);
      throwIfAborted(signal, "Loading the model");
      const parts = { recorder, memory, threads };
      const plan = new WasmPlan(parts, kernelNames(kernels.modules));
      this.#onPlan(plan, parts);
      return plan;
    } catch (error) {
      threads?.dispose();
      for (const port of ports) port.close();
      throw error;
    }
  }

  /** The largest pool that the address space and the machine have room for, halving from the one wanted. */
  #allocate(): { readonly recorder: Recorder; readonly memory: WebAssembly.Memory } {
    const isShared = this.#context.threads > 1;
    for (let numBlocks = this.#spec.numBlocks; ; numBlocks = Math.floor(numBlocks / 2)) {
      numBlocks = Math.max(numBlocks, this.#spec.minBlocks);
      const recorder = this.#record(numBlocks);
      const { byteLength } = recorder.arena;
      const memory =
        byteLength <= MAX_MEMORY_BYTES ? allocateMemory(byteLength, isShared) : undefined;
      if (memory !== undefined) return { recorder, memory };
      if (numBlocks === this.#spec.minBlocks) throw outOfMemory(recorder.memory);
    }
  }

  #record(numBlocks: number): Recorder {
    const recorder = new Recorder({ ...this.#spec, numBlocks }, new Arena(), this.#context);
    for (const op of this.#ops) op(recorder);
    recorder.program.seal();
    return recorder;
  }
}
