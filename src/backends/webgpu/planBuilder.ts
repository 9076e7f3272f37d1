import { invariant, QuireError } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Activation, Linear, Plan, PlanBuilder, PlanSpec } from "../ops.ts";
import { reachableContext } from "../reachableContext.ts";
import { WeightArena } from "./arena.ts";
import { attentionDispatches } from "./attention.ts";
import { attentionMemory } from "./attentionShape.ts";
import { type BuildContext, buildPlan, type RecordedOp } from "./buildPlan.ts";
import { type Dispatch, dispatchThreads } from "./dispatch.ts";
import { type KernelCache, type Resource, read, write } from "./kernel.ts";
import type { KernelChoice } from "./kernelChoice.ts";
import { bindableBlocks, kvConstants } from "./kvPool.ts";
import type { BufferLimits } from "./limits.ts";
import {
  floatBits,
  linearDispatches,
  type StreamBuffers,
  streamResources,
  weightResources,
  windowShape,
} from "./linear.ts";
import { isUniform, type PackedMatrix } from "./packedMatrix.ts";
import type { Region } from "./region.ts";
import { stepResources } from "./stepBuffer.ts";

/** An activation, with the name of its buffer. */
interface GpuActivation extends Activation {
  readonly name: string;
  /** The stream only: the norm that reads it next, known once that op is recorded. */
  gain: Region | undefined;
}

/** Records ops, reserving weights and scratch; `finish` allocates, compiles and binds. */
export class WebGpuPlanBuilder implements PlanBuilder {
  readonly #device: GPUDevice;
  readonly #kernels: KernelCache;
  /** `maxContext` is what the KV pool can hold of it, and a pool that comes out smaller changes nothing. */
  readonly #spec: PlanSpec;
  readonly #choice: KernelChoice;
  readonly #limits: BufferLimits;
  readonly #arena: WeightArena;
  readonly #maxRows: number;
  readonly #ops: RecordedOp[] = [];
  readonly #scratchBytes = new Map<string, number>();
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #matrices = new Map<string, PackedMatrix>();

  constructor(
    device: GPUDevice,
    kernels: KernelCache,
    limits: BufferLimits,
    spec: PlanSpec,
    choice: KernelChoice,
  ) {
    this.#kernels = kernels;
    this.#choice = choice;
    const { headDim, blockSize, maxSequences, width } = spec;
    if (headDim % 4 !== 0 || headDim > 256) {
      throw new QuireError(
        "model-unsupported",
        `The model's heads have ${headDim} dimensions; WebGPU runs multiples of 4 up to 256. Use another model.`,
        { headDim },
      );
    }
    if (width % 32 !== 0) {
      throw new QuireError(
        "model-unsupported",
        `The model is ${width} wide; WebGPU runs multiples of 32. Use another model.`,
        { width },
      );
    }
    this.#device = device;
    const numBlocks = Math.min(spec.numBlocks, bindableBlocks(spec, limits));
    const maxContext = reachableContext({ ...spec, numBlocks });
    this.#spec = { ...spec, maxContext };
    this.#limits = limits;
    this.#arena = new WeightArena(device, limits);
    const { maxRows, mixedBytes } = attentionMemory(this.#spec, limits);
    this.#maxRows = maxRows;
    this.#scratchBytes.set("mixed", mixedBytes);
    this.#scratchBytes.set("lastTokens", maxSequences * 4);
    this.#scratchBytes.set("blockTables", maxSequences * Math.ceil(maxContext / blockSize) * 4);
    this.#ops.push((context) => this.#updateBlockTables(context));
  }

  embed(table: TensorInfo): Activation {
    const matrix = this.#matrix([[table]]);
    const x = this.#activation("stream", table.columns);
    this.#activation("scaled", table.columns);
    this.#activation("squares", table.columns / 4);
    this.#ops.push(async (context) => {
      const stream = streamBuffers(context, x);
      return Promise.all(
        matrix.windows.map(async (window) => {
          const resources = {
            ...stepResources(context.stepBuffer),
            ...weightResources(window),
            4: read(context.scratch("lastTokens")),
            ...streamResources(stream),
            11: context.kernels.constants(windowShape(matrix, window)),
          };
          const kernel = await context.kernels.get("embed", matrix.format.constants, resources);
          const bindGroup = context.kernels.bind(kernel, resources);
          return dispatchThreads(kernel, bindGroup, ({ rows }) => rows * (matrix.columns / 32));
        }),
      );
    });
    return x;
  }

  normLinear(x: Activation, norm: TensorInfo, linears: readonly Linear[]): Activation {
    this.#setGain(x, norm);
    const width = linears.reduce((sum, { weight }) => sum + weight.rows, 0);
    const y = this.#activation("projected", width);
    let firstOutput = 0;
    for (const run of uniformRuns(linears)) {
      this.#linearStore(x, run, y, firstOutput);
      firstOutput += run.reduce((sum, { weight }) => sum + weight.rows, 0);
    }
    return y;
  }

  ropeWriteKv(
    layer: number,
    qkv: Activation,
    headNorms: { readonly q: TensorInfo; readonly k: TensorInfo } | undefined,
  ): Activation {
    const { numHeads, numKvHeads, headDim, rope, rmsEpsilon, maxContext } = this.#spec;
    const q = this.#activation("queries", numHeads * headDim);
    const gains = headNorms && {
      q: this.#vector(headNorms.q),
      k: this.#vector(headNorms.k),
    };
    const halfRotary = rope.frequencies.length;
    this.#scratchBytes.set("rotations", maxContext * halfRotary * 8);
    this.#ops.push(async (context) => {
      const constants = {
        ...kvConstants(this.#spec),
        HEADS: numHeads,
        ROTARY: halfRotary * 2,
        ...(rope.pairing === "neox" ? { NEOX: 1 } : {}),
        ...(gains ? { HEAD_NORM: 1, EPSILON_BITS: floatBits(rmsEpsilon) } : {}),
      };
      const resources: Record<number, Resource> = {
        ...stepResources(context.stepBuffer),
        2: read(context.scratch(nameOf(qkv))),
        3: read(context.scratch("rotations")),
        4: write(context.scratch(q.name)),
        5: write(context.pool.layer(layer)),
      };
      if (gains) {
        resources[6] = read(gains.q);
        resources[7] = read(gains.k);
      }
      const kernel = await context.kernels.get("ropeWriteKv", constants, resources);
      const bindGroup = context.kernels.bind(kernel, resources);
      const heads = numHeads + 2 * numKvHeads;
      return [dispatchThreads(kernel, bindGroup, ({ rows }) => rows * heads)];
    });
    return q;
  }

  attention(layer: number, q: Activation): Activation {
    const { numHeads, headDim } = this.#spec;
    const mixed = this.#activation("mixed", numHeads * headDim);
    const names = { queries: nameOf(q), outputs: mixed.name };
    const sizes = { ...this.#spec, maxRows: this.#maxRows };
    this.#ops.push((context) => attentionDispatches(context, sizes, layer, names));
    return mixed;
  }

  linearAdd(x: Activation, y: Activation, linear: Linear): Activation {
    const next = this.#activation("stream", x.width);
    const matrix = this.#matrix([[linear.weight]]);
    const bias = this.#bias([linear]);
    this.#ops.push((context) =>
      linearDispatches(context, {
        matrix,
        x: context.scratch(nameOf(y)),
        ...(bias ? { bias } : {}),
        output: { form: "add", stream: streamBuffers(context, next) },
      }),
    );
    return next;
  }

  gatedMlp(x: Activation, norm: TensorInfo, gate: Linear, up: Linear, down: Linear): Activation {
    this.#setGain(x, norm);
    const hidden = this.#activation("hidden", gate.weight.rows);
    const canFuse = isUniform([gate.weight, up.weight]) && !gate.bias && !up.bias;
    if (canFuse) {
      const matrix = this.#matrix([[gate.weight], [up.weight]]);
      this.#ops.push((context) =>
        linearDispatches(context, {
          matrix,
          x: context.scratch("scaled"),
          norm: this.#normInput(context, x),
          output: { form: "gate", y: context.scratch(hidden.name), stride: hidden.width },
        }),
      );
    } else {
      const gated = this.#activation("gate", hidden.width);
      const upper = this.#activation("up", hidden.width);
      this.#linearStore(x, [gate], gated, 0);
      this.#linearStore(x, [up], upper, 0);
      this.#ops.push(async (context) => {
        const widthVectors = hidden.width / 4;
        const resources = {
          ...stepResources(context.stepBuffer),
          2: read(context.scratch(gated.name)),
          3: read(context.scratch(upper.name)),
          4: write(context.scratch(hidden.name)),
        };
        const constants = { WIDTH_VECTORS: widthVectors };
        const kernel = await context.kernels.get("gatedUnit", constants, resources);
        const bindGroup = context.kernels.bind(kernel, resources);
        return [dispatchThreads(kernel, bindGroup, ({ rows }) => rows * widthVectors)];
      });
    }
    return this.linearAdd(x, hidden, down);
  }

  sampleLogits(x: Activation, norm: TensorInfo, head: TensorInfo): void {
    this.#setGain(x, norm);
    const { vocabularySize, maxSequences } = this.#spec;
    const matrix = this.#matrix([[head]]);
    this.#scratchBytes.set("logits", maxSequences * vocabularySize * 4);
    this.#ops.push((context) =>
      linearDispatches(context, {
        matrix,
        x: context.scratch("scaled"),
        gather: true,
        norm: this.#normInput(context, x),
        output: { form: "store", y: context.scratch("logits"), stride: vocabularySize },
      }),
    );
  }

  finish(signal?: AbortSignal): Promise<Plan> {
    const pass = {
      spec: this.#spec,
      maxRows: this.#maxRows,
      choice: this.#choice,
      ops: this.#ops,
      arena: this.#arena,
      tensors: [...this.#tensors.values()],
      scratchBytes: this.#scratchBytes,
    };
    return buildPlan(this.#device, this.#kernels, this.#limits, pass, signal);
  }

  // --- Recording ---

  #activation(name: string, width: number): GpuActivation {
    const bytes = this.#maxRows * width * 4;
    this.#scratchBytes.set(name, Math.max(bytes, this.#scratchBytes.get(name) ?? 0));
    return { name, width, gain: undefined };
  }

  /** Rows of `linears`, which share a type, as outputs firstOutput.. of y. */
  #linearStore(x: Activation, linears: readonly Linear[], y: GpuActivation, firstOutput: number) {
    const matrix = this.#matrix([linears.map(({ weight }) => weight)]);
    const bias = this.#bias(linears);
    this.#ops.push((context) =>
      linearDispatches(context, {
        matrix,
        x: context.scratch("scaled"),
        norm: this.#normInput(context, x),
        ...(bias ? { bias } : {}),
        output: { form: "store", y: context.scratch(y.name), stride: y.width, firstOutput },
      }),
    );
  }

  #matrix(parts: readonly (readonly TensorInfo[])[]): PackedMatrix {
    for (const tensor of parts.flat()) this.#tensors.set(tensor.name, tensor);
    const key = parts.map((part) => part.map(({ name }) => name).join("+")).join("|");
    const known = this.#matrices.get(key);
    if (known) return known;
    const matrix = this.#arena.addMatrix(parts);
    this.#matrices.set(key, matrix);
    return matrix;
  }

  #vector(tensor: TensorInfo): Region {
    this.#tensors.set(tensor.name, tensor);
    return this.#arena.addVectors([{ tensor, length: tensor.columns * tensor.rows }]);
  }

  #bias(linears: readonly Linear[]): Region | undefined {
    if (linears.every(({ bias }) => bias === undefined)) return undefined;
    for (const { bias } of linears) if (bias) this.#tensors.set(bias.name, bias);
    return this.#arena.addVectors(
      linears.map(({ weight, bias }) => ({ tensor: bias, length: weight.rows })),
    );
  }

  #setGain(x: Activation, norm: TensorInfo): void {
    const stream = x as GpuActivation;
    invariant(stream.name === "stream" && !stream.gain, "One norm reads each state of the stream.");
    stream.gain = this.#vector(norm);
  }

  #normInput(context: BuildContext, x: Activation) {
    return {
      squares: context.scratch("squares"),
      width: x.width,
      epsilon: this.#spec.rmsEpsilon,
    };
  }

  async #updateBlockTables(context: BuildContext): Promise<Dispatch[]> {
    const resources = {
      ...stepResources(context.stepBuffer),
      2: write(context.scratch("blockTables")),
    };
    const kernel = await context.kernels.get("updateBlockTables", {}, resources);
    const bindGroup = context.kernels.bind(kernel, resources);
    return [dispatchThreads(kernel, bindGroup, ({ entries }) => entries)];
  }
}

function nameOf(activation: Activation): string {
  return (activation as GpuActivation).name;
}

function streamBuffers(context: BuildContext, x: GpuActivation): StreamBuffers {
  invariant(x.gain, "Every state of the stream is read by a norm.");
  return {
    stream: context.scratch("stream"),
    gain: x.gain,
    scaled: context.scratch("scaled"),
    squares: context.scratch("squares"),
    width: x.width,
  };
}

/** Splits linears into runs of neighbours that can share a matrix. */
function uniformRuns(linears: readonly Linear[]): Linear[][] {
  const runs: Linear[][] = [];
  for (const linear of linears) {
    const last = runs.at(-1);
    if (last && isUniform([last[0]!.weight, linear.weight])) last.push(linear);
    else runs.push([linear]);
  }
  return runs;
}
