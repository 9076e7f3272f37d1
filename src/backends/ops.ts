import type { StepExecutor } from "../engine/step.ts";
import type { TensorInfo } from "../weights/tensorType.ts";

// The one interface that a back end implements. Nothing above it assumes a GPU.
// Life of a plan: backend.createPlanBuilder -> the model's forward pass records ops once ->
// builder.finish -> plan.writeRows for every tensor -> plan.submit for every step.

/** The adapter in use, as the platform names it. Strings may be empty. */
export interface AdapterSummary {
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  /** True for a software adapter. */
  readonly isFallback: boolean;
}

export interface Backend {
  readonly name: "webgpu" | "wasm" | "reference";
  /** exact: float32 arithmetic at the least. fast: activations of linear layers in 8 bits. */
  readonly precision: "exact" | "fast";
  /** CPU threads that compute a step, the caller's included. */
  readonly threads: number;
  /** The kernels' instructions; null where they are no WebAssembly. */
  readonly simd: "relaxed" | "plain" | null;
  /** Null where no adapter is involved. */
  readonly adapter: AdapterSummary | null;
  /** Which of several sets of kernels, whose bits differ, it computes with on the adapter; null if there is one. */
  readonly kernels: string | null;
  createPlanBuilder(spec: PlanSpec): PlanBuilder;
  /** Rejects nothing and resolves once, with a QuireError, if the device is lost other than by `dispose`. */
  readonly lost: Promise<Error>;
  /** Frees everything, plans included. Idempotent. */
  dispose(): void;
}

/** How K and V are stored. */
export type KvCacheDtype = "f16" | "f32";

/** Sizes that are fixed for the life of a plan. */
export interface PlanSpec {
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Model width: length of the residual stream's rows. */
  readonly width: number;
  readonly vocabularySize: number;
  /** Epsilon of every RMS norm. */
  readonly rmsEpsilon: number;
  readonly rope: RopeSpec;
  readonly kvCacheDtype: KvCacheDtype;
  readonly blockSize: 8 | 16 | 32;
  /** Blocks wanted for the KV pool. The back end may end up with fewer, down to `minBlocks`: see Plan.numBlocks. */
  readonly numBlocks: number;
  readonly minBlocks: number;
  /** Blocks that swapped-out sequences may occupy in host memory; memory is taken as they come. */
  readonly numHostBlocks: number;
  /** Most sequences resident at once: slots 0..maxSequences-1. */
  readonly maxSequences: number;
  /** Longest sequence in tokens. */
  readonly maxContext: number;
  /** Most rows wanted in a step. The back end may allow fewer: see Plan.maxRows. */
  readonly maxRows: number;
}

/** Rotary embedding. Dimension pairs (a, b) of a head turn by position * frequencies[i]. */
export interface RopeSpec {
  /** adjacent: (2i, 2i+1), ggml's NORM. neox: (i, i + rotaryDims/2). */
  readonly pairing: "adjacent" | "neox";
  /** Radians a position, [rotaryDims / 2]; dimensions past rotaryDims stay as they are. */
  readonly frequencies: Float64Array;
  /** Factor on cos and sin (yarn's attention factor; 1 otherwise). */
  readonly magnitude: number;
}

/** Rows of floats that an op makes and later ops read. Opaque; belongs to one builder. */
export interface Activation {
  /** Floats a row. */
  readonly width: number;
}

/** A linear layer: y = W x + b. W is [rows, columns] = [outputs, inputs]. */
export interface Linear {
  readonly weight: TensorInfo;
  /** [1, rows]; undefined = none. */
  readonly bias: TensorInfo | undefined;
}

/**
 * Records a forward pass as fused ops, each over all rows of a step. [shape] comments give row shapes.
 * "The stream" is the residual stream, [width].
 */
export interface PlanBuilder {
  /** Starts the stream: x = table[token]. */
  embed(table: TensorInfo): Activation;
  /** The concatenation of `linears` applied to rmsNorm(x) * norm. Returns [sum of outputs]. */
  normLinear(x: Activation, norm: TensorInfo, linears: readonly Linear[]): Activation;
  /**
   * Splits qkv into heads [numHeads + 2 * numKvHeads][headDim], norms q and k heads where norms are given,
   * turns q and k by RoPE and writes k and v into the layer's part of the KV pool.
   * Returns the turned q, [numHeads * headDim].
   */
  ropeWriteKv(
    layer: number,
    qkv: Activation,
    headNorms: { readonly q: TensorInfo; readonly k: TensorInfo } | undefined,
  ): Activation;
  /** Causal paged attention of q over the pool, softmax(q k / sqrt(headDim)) v. Returns [numHeads * headDim]. */
  attention(layer: number, q: Activation): Activation;
  /** x + W y, the new stream. Consumes x. */
  linearAdd(x: Activation, y: Activation, linear: Linear): Activation;
  /** x + down(silu(gate n) * up n) with n = rmsNorm(x) * norm, the new stream. Consumes x. */
  gatedMlp(x: Activation, norm: TensorInfo, gate: Linear, up: Linear, down: Linear): Activation;
  /** Logits of the step's sampled and scored rows only, then sampling and scoring: ends the pass. */
  sampleLogits(x: Activation, norm: TensorInfo, head: TensorInfo): void;
  /** Allocates weights, pool and scratch and compiles. Throws `out-of-memory`, `webgpu-limits`, `aborted`. */
  finish(signal?: AbortSignal): Promise<Plan>;
}

/** A forward pass ready to run. Owns its weights and its KV pool. */
export interface Plan extends StepExecutor {
  /** Blocks that the KV pool really has. */
  readonly numBlocks: number;
  /** Most rows that a step may have. */
  readonly maxRows: number;
  /** Bytes of one block, K and V of all layers. */
  readonly blockBytes: number;
  /** Bytes held for weights, KV pool and scratch, and in host memory for what is swapped out. */
  readonly memory: {
    readonly weights: number;
    readonly kvPool: number;
    readonly scratch: number;
    readonly swapped: number;
  };
  /** Every tensor that the recorded ops use, once each. */
  readonly tensors: readonly TensorInfo[];
  /**
   * Takes rows [rowStart, rowStart + n) of a tensor in the file's layout; n follows from bytes.length.
   * Resolves when the back end has room for more: await it before reading on.
   */
  writeRows(tensor: TensorInfo, rowStart: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Logits of the newest submitted step, [samples, then scores][vocabularySize], before penalties and bias.
   * For tests and measurements: it reads back megabytes.
   */
  readLogits(): Promise<Float32Array>;
  /** Frees weights, pool and scratch. Steps in flight reject with `disposed`. Idempotent. */
  dispose(): void;
}
