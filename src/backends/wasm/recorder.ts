import type { TensorInfo } from "../../weights/tensorType.ts";
import type { Linear, PlanSpec } from "../ops.ts";
import { reachableContext } from "../reachableContext.ts";
import { LOGITS_ROW_BYTES, rowWords, SCRATCH_BYTES, sampleWords, step, TILE_ROWS } from "./abi.ts";
import type { Arena } from "./arena.ts";
import { ATTEND, MERGE, ROPE } from "./attentionAbi.ts";
import { type KvPoolLayout, kvPoolBytes, layOutKvPool } from "./kvPool.ts";
import { EMBED, LINEAR, QUANTIZE } from "./linearAbi.ts";
import {
  activationBytes,
  activationFormat,
  embedKernelName,
  linearKernelName,
  quantizeKernelName,
} from "./matrixFormat.ts";
import type { MemoryNeed } from "./memory.ts";
import type { BuilderContext } from "./options.ts";
import { isUniform } from "./packedMatrix.ts";
import { floatBits, Program } from "./program.ts";
import { Sampler } from "./sampler.ts";
import type { StepTables } from "./stepTables.ts";
import { type PlacedMatrix, Weights } from "./weights.ts";
import { maxItems, maxPartials, maxRowsFor, partialBytes } from "./workList.ts";

/**
 * What partial attention results may take, which over long contexts bounds the rows of a step: these bytes,
 * or this share of the KV pool if that is more. A row's partials grow with the pool as its context does, so
 * that the share leaves models of any size their rows.
 */
const PARTIALS_BYTES = 64 * 2 ** 20;
const PARTIALS_POOL_SHARE = 1 / 8;
/** Fewest tiles of a matrix that are worth a chunk. */
const CHUNK_TILES = 4;
/** Pieces that the hidden row of the MLP is cut into: its exponentials are worth sharing out. */
const GATED_SEGMENTS = 4;

/** How the rows of an op's input become records of activations. */
interface Source {
  readonly kind: "plain" | "normed" | "gated";
  readonly address: number;
  /** Bytes between rows. */
  readonly stride: number;
  /** Address of the gain; normed only. */
  readonly gain?: number;
  /** Address of `StepTables.logitsRows`: only these rows, in this order. */
  readonly gather?: number;
}

/** Turns ops into commands over addresses: the forward pass as it will lie in the memory. */
export class Recorder {
  /** `maxContext` is what the pool can hold of it. */
  readonly spec: PlanSpec;
  readonly arena: Arena;
  readonly program: Program;
  readonly weights: Weights;
  readonly maxRows: number;
  /** A thread's scratch each, the caller's first. */
  readonly scratches: readonly number[];
  readonly tables: StepTables;
  readonly kvPool: KvPoolLayout;
  readonly #context: BuilderContext;
  readonly #regions = new Map<string, number>();
  readonly #stream: number; // [maxRows][width] f32
  readonly #streamStride: number;
  #sampler: Sampler | undefined;
  #logits = { address: 0, stride: 0 }; // [maxSequences][vocabularySize padded] f32

  constructor(spec: PlanSpec, arena: Arena, context: BuilderContext) {
    const maxContext = reachableContext(spec);
    this.spec = { ...spec, maxContext };
    this.arena = arena;
    this.program = new Program(arena);
    this.weights = new Weights(arena);
    this.#context = context;
    const { numHeads, headDim, maxSequences, blockSize, rope } = spec;
    const partialsBytes = Math.max(PARTIALS_BYTES, kvPoolBytes(spec) * PARTIALS_POOL_SHARE);
    const mostRows = maxRowsFor(partialsBytes, maxContext, numHeads, headDim);
    this.maxRows = Math.min(spec.maxRows, mostRows);
    this.scratches = Array.from({ length: context.threads }, () =>
      arena.reserve("scratch", SCRATCH_BYTES),
    );
    const tableBlocks = Math.ceil(maxContext / blockSize);
    const list = (numRecords: number, bytes: number): number =>
      arena.reserve("scratch", numRecords * bytes);
    this.tables = {
      rows: list(this.maxRows, rowWords.BYTES),
      samples: list(maxSequences, sampleWords.BYTES),
      logitsRows: list(maxSequences, LOGITS_ROW_BYTES),
      items: list(maxItems(this.maxRows, maxContext), 16),
      merges: list(this.maxRows, 16),
      rotations: list(this.maxRows, rope.frequencies.length * 8),
      blockTables: list(maxSequences, tableBlocks * 4),
      tableBlocks,
    };
    this.kvPool = layOutKvPool(spec, arena);
    this.#streamStride = spec.width * 4;
    this.#stream = this.#region("stream", this.#streamStride);
  }

  /** Bytes of the plan by use. */
  get memory(): MemoryNeed {
    const weights = this.arena.bytesOf("weights");
    const kvPool = this.arena.bytesOf("kv pool");
    return { weights, kvPool, scratch: this.arena.byteLength - weights - kvPool };
  }

  get sampler(): Sampler {
    return this.#sampler!;
  }

  /** [distinct rows of samples and scores][stride bytes] */
  get logits(): { readonly address: number; readonly stride: number } {
    return this.#logits;
  }

  embed(table: TensorInfo): void {
    const { matrix, address } = this.weights.matrix([table]);
    const params = this.program.params(EMBED, {
      weights: address,
      blocks: matrix.columns / 32,
      output: this.#stream,
      outputStride: this.#streamStride,
      rowsTable: this.tables.rows,
    });
    this.program.add({
      kernel: embedKernelName(matrix.format),
      params,
      items: ({ rows }) => rows,
    });
  }

  normLinear(norm: TensorInfo, linears: readonly Linear[]): void {
    const width = linears.reduce((sum, { weight }) => sum + weight.rows, 0);
    const stride = rowStride(width);
    this.#linears(linears, this.#normed(norm), {
      address: this.#region("projected", stride),
      stride,
      add: false,
    });
  }

  ropeWriteKv(
    layer: number,
    headNorms: { readonly q: TensorInfo; readonly k: TensorInfo } | undefined,
  ): void {
    const { numHeads, numKvHeads, headDim, rope, rmsEpsilon, blockSize, kvCacheDtype } = this.spec;
    const stride = rowStride((numHeads + 2 * numKvHeads) * headDim);
    const gain = (tensor: TensorInfo | undefined): number =>
      tensor === undefined ? 0 : this.weights.vector([{ tensor, length: headDim }]);
    const params = this.program.params(ROPE, {
      input: this.#region("projected", stride),
      inputStride: stride,
      output: this.#region("queries", numHeads * headDim * 4),
      outputStride: numHeads * headDim * 4,
      rowsTable: this.tables.rows,
      rotations: this.tables.rotations,
      layer: this.kvPool.layers[layer]!,
      numHeads,
      numKvHeads,
      headDim,
      pairs: rope.frequencies.length,
      isNeox: rope.pairing === "neox" ? 1 : 0,
      queryGain: gain(headNorms?.q),
      keyGain: gain(headNorms?.k),
      epsilon: floatBits(rmsEpsilon),
      blockSize,
    });
    const heads = numHeads + 2 * numKvHeads;
    this.program.add({
      kernel: `ropeWriteKv_${kvCacheDtype}`,
      params,
      items: ({ rows }) => rows * heads,
      chunkItems: heads,
    });
  }

  attention(layer: number): void {
    const { numHeads, numKvHeads, headDim, blockSize, kvCacheDtype, maxContext } = this.spec;
    const { rows: rowsTable, items, merges, blockTables, tableBlocks } = this.tables;
    const outputs = this.#region("mixed", numHeads * headDim * 4);
    const outputStride = numHeads * headDim * 4;
    const partials = this.#partials(
      maxPartials(this.maxRows, maxContext) * partialBytes(numHeads, headDim),
    );
    const params = this.program.params(ATTEND, {
      queries: this.#region("queries", numHeads * headDim * 4),
      queryStride: numHeads * headDim * 4,
      layer: this.kvPool.layers[layer]!,
      numHeads,
      numKvHeads,
      headDim,
      scale: floatBits(1 / Math.sqrt(headDim)),
      blockSize,
      rowsTable,
      blockTables,
      tableBlocks,
      items,
      outputs,
      outputStride,
      partials,
    });
    this.program.add({
      kernel: `attend_${kvCacheDtype}`,
      params,
      items: (counts) => counts.items * numKvHeads,
    });
    const mergeParams = this.program.params(MERGE, {
      merges,
      partials,
      numHeads,
      headDim,
      outputs,
      outputStride,
    });
    this.program.add({
      kernel: "mergeAttention",
      params: mergeParams,
      items: (counts) => counts.merges * numHeads,
      chunkItems: numHeads,
    });
  }

  linearAdd(linear: Linear): void {
    const { numHeads, headDim } = this.spec;
    const stride = numHeads * headDim * 4;
    this.#linears(
      [linear],
      { kind: "plain", address: this.#region("mixed", stride), stride },
      this.#intoStream(),
    );
  }

  gatedMlp(norm: TensorInfo, gate: Linear, up: Linear, down: Linear): void {
    const stride = rowStride(gate.weight.rows + up.weight.rows);
    const address = this.#region("hidden", stride);
    this.#linears([gate, up], this.#normed(norm), { address, stride, add: false });
    this.#linears([down], { kind: "gated", address, stride }, this.#intoStream());
  }

  sampleLogits(norm: TensorInfo, head: TensorInfo): void {
    const { maxSequences, vocabularySize } = this.spec;
    const { samples, logitsRows } = this.tables;
    const stride = rowStride(vocabularySize);
    const address = this.arena.reserve("scratch", maxSequences * stride);
    this.#logits = { address, stride };
    const placed = this.weights.matrix([head]);
    const source: Source = { ...this.#normed(norm), gather: logitsRows };
    const records = this.#quantize(placed, source);
    this.#multiply(placed, records, { address, stride, add: false, isGathered: true, bias: 0 });
    this.#sampler = new Sampler(this.arena, this.program, {
      maxSequences,
      vocabularySize,
      logits: address,
      logitsStride: stride,
      samples,
    });
  }

  #normed(norm: TensorInfo): Source {
    return {
      kind: "normed",
      address: this.#stream,
      stride: this.#streamStride,
      gain: this.weights.vector([{ tensor: norm, length: this.spec.width }]),
    };
  }

  #intoStream() {
    return { address: this.#stream, stride: this.#streamStride, add: true };
  }

  /** The outputs of linear layers side by side. Neighbours of one tensor type are one matrix. */
  #linears(
    linears: readonly Linear[],
    source: Source,
    output: { readonly address: number; readonly stride: number; readonly add: boolean },
  ): void {
    let address = output.address;
    const quantized = new Map<string, number>();
    for (const group of groupUniform(linears)) {
      const placed = this.weights.matrix(group.map(({ weight }) => weight));
      const { matrix } = placed;
      // Matrices of different types may want the same kind of records.
      const format = this.#activationFormat(placed);
      const records = quantized.get(format) ?? this.#quantize(placed, source);
      quantized.set(format, records);
      const hasBias = group.some(({ bias }) => bias !== undefined);
      const parts = group.map(({ weight, bias }) => ({ tensor: bias, length: weight.rows }));
      this.#multiply(placed, records, {
        ...output,
        address,
        isGathered: false,
        bias: hasBias ? this.weights.vector(parts) : 0,
      });
      address += matrix.rows * 4;
    }
  }

  #activationFormat({ matrix }: PlacedMatrix) {
    return activationFormat(matrix.format, this.#context.precision, this.#context.kernels.simd);
  }

  /** Returns the address of the records. */
  #quantize(placed: PlacedMatrix, source: Source): number {
    const format = this.#activationFormat(placed);
    const { columns } = placed.matrix;
    // By format too: records of two kinds may be needed side by side.
    const records = this.#region(`records ${format}`, activationBytes(format, columns));
    const isGathered = source.gather !== undefined;
    const segments = source.kind === "gated" ? GATED_SEGMENTS : 1;
    const params = this.program.params(QUANTIZE, {
      input: source.address,
      inputStride: source.stride,
      blocks: columns / 32,
      gain: source.gain ?? 0,
      epsilon: floatBits(this.spec.rmsEpsilon),
      up: columns * 4,
      records,
      rows: isGathered ? step.LOGITS : step.ROWS,
      gather: source.gather ?? 0,
      segments,
    });
    this.program.add({
      kernel: quantizeKernelName(source.kind, format),
      params,
      items: ({ rows, logits }) => (isGathered ? logits : rows) * segments,
    });
    return records;
  }

  #multiply(
    { matrix, address: weights }: PlacedMatrix,
    records: number,
    output: {
      readonly address: number;
      readonly stride: number;
      readonly add: boolean;
      readonly isGathered: boolean;
      readonly bias: number;
    },
  ): void {
    const { isGathered } = output;
    const params = this.program.params(LINEAR, {
      weights,
      blocks: matrix.columns / 32,
      records,
      output: output.address,
      outputStride: output.stride,
      bias: output.bias,
      add: output.add ? 1 : 0,
      rows: isGathered ? step.LOGITS : step.ROWS,
    });
    this.program.add({
      kernel: linearKernelName(matrix.format, this.#context.precision),
      params,
      items: ({ logits }) => (isGathered && logits === 0 ? 0 : matrix.tiles),
      chunkItems: CHUNK_TILES,
    });
  }

  /** Scratch for every row of a step, shared by all layers. */
  #region(name: string, bytesPerRow: number): number {
    const key = `${name} ${bytesPerRow}`;
    const known = this.#regions.get(key);
    if (known !== undefined) return known;
    const address = this.arena.reserve("scratch", this.maxRows * bytesPerRow);
    this.#regions.set(key, address);
    return address;
  }

  #partials(byteLength: number): number {
    const known = this.#regions.get("partials");
    if (known !== undefined) return known;
    const address = this.arena.reserve("scratch", byteLength);
    this.#regions.set("partials", address);
    return address;
  }
}

/** Bytes of a row of outputs: matrices write whole tiles, from any 4-byte boundary in it. */
function rowStride(width: number): number {
  return (Math.ceil(width / TILE_ROWS) * TILE_ROWS + TILE_ROWS) * 4;
}

function groupUniform(linears: readonly Linear[]): readonly (readonly Linear[])[] {
  const groups: Linear[][] = [];
  for (const linear of linears) {
    const last = groups.at(-1);
    const together = last && isUniform([...last, linear].map(({ weight }) => weight));
    if (together) last.push(linear);
    else groups.push([linear]);
  }
  return groups;
}
