import type { Dispatch } from "./dispatch.ts";
import { type KernelCache, type Resource, type Resources, read, uniform, write } from "./kernel.ts";
import type { KernelChoice, LinearTokens } from "./kernelChoice.ts";
import { WORKGROUP_SIZE } from "./limits.ts";
import type { MatrixWindow, PackedMatrix } from "./packedMatrix.ts";
import { HEADER_WORDS } from "./stepBuffer.ts";

/** Blocks of 32 along K that share an accumulator (shaders/linear.wgsl). Part of the numeric scheme. */
const CHUNK_BLOCKS = 8;

/** Vectors of 4 weights in a block. */
const BLOCK_VECTORS = 8;

/** Threads that a matrix should give a GPU for one row, and slices of K at most that make more of them. A choice, not measured. */
const WANTED_THREADS = 8192;
const MAX_SLICES = 8;

/** Rows that a thread with a slice of K takes at most: more take many registers, and long to compile. */
const MAX_SLICED_TOKENS = 4;

/** What the linear kernels of a plan share. */
export interface LinearContext {
  readonly kernels: KernelCache;
  readonly stepBuffer: GPUBuffer;
  readonly choice: KernelChoice;
}

/** What a linear kernel reads and makes; see shaders/linear.wgsl. Buffers are f32. */
export interface LinearSpec {
  readonly matrix: PackedMatrix;
  readonly x: GPUBuffer;
  /** Rows come from the step's samples and scores, and there are as many as those. */
  readonly gather?: boolean;
  readonly norm?: NormInput;
  /** f32 [outputs]. */
  readonly bias?: GPUBufferBinding;
  readonly output:
    | {
        readonly form: "store" | "gate";
        /** Rows of `stride` floats. */
        readonly y: GPUBuffer;
        readonly stride: number;
        /** Column of y that the matrix's first row makes; 0 by default. */
        readonly firstOutput?: number;
      }
    | { readonly form: "add"; readonly stream: StreamBuffers };
}

/** The sums of squares that turn into the RMS norm of the input rows. */
export interface NormInput {
  readonly squares: GPUBuffer;
  readonly width: number;
  readonly epsilon: number;
}

/** The residual stream, [rows][width], and what its producer prepares for the next norm. */
export interface StreamBuffers {
  readonly stream: GPUBuffer;
  /** f32 [width]: weight of the norm that reads the stream next. */
  readonly gain: GPUBufferBinding;
  /** stream * gain, [rows][width]. */
  readonly scaled: GPUBuffer;
  /** Sums of squares of groups of 4, [rows][width / 4]. */
  readonly squares: GPUBuffer;
  readonly width: number;
}

/** One dispatch for each window of the matrix. */
export function linearDispatches(context: LinearContext, spec: LinearSpec): Promise<Dispatch[]> {
  return Promise.all(spec.matrix.windows.map((window) => windowDispatch(context, spec, window)));
}

async function windowDispatch(
  { kernels, stepBuffer, choice }: LinearContext,
  spec: LinearSpec,
  window: MatrixWindow,
): Promise<Dispatch> {
  const { matrix, output, gather } = spec;
  const isGate = output.form === "gate";
  const groups = isGate ? window.rows / 2 : window.paddedRows / 4;
  const slices = choice.family === "workgroup" ? slicesFor(matrix) : 1;
  const constants: Record<string, number> = {
    ...matrix.format.constants,
    FOUR: 4,
    CHUNK_BLOCKS,
    ...(slices > 1 ? { SLICES: slices } : {}),
    [output.form.toUpperCase()]: 1,
  };
  const resources: Record<number, Resource> = {
    0: uniform(stepBuffer, HEADER_WORDS * 4),
    ...weightResources(window),
    4: read(spec.x),
    11: kernels.constants([
      ...windowShape(matrix, window),
      groups,
      output.form === "add" ? output.stream.width : output.stride,
      output.form === "add" ? 0 : (output.firstOutput ?? 0),
      spec.norm ? spec.norm.width / 16 : 0,
      spec.norm ? floatBits(spec.norm.epsilon) : 0,
      BLOCK_VECTORS,
    ]),
  };
  if (gather) {
    constants["GATHER"] = 1;
    resources[1] = read(stepBuffer);
  }
  if (spec.norm) {
    constants["NORM"] = 1;
    resources[5] = read(spec.norm.squares);
  }
  if (spec.bias) {
    constants["BIAS"] = 1;
    resources[6] = read(spec.bias);
  }
  if (output.form === "add") Object.assign(resources, streamResources(output.stream));
  else resources[7] = write(output.y);
  const variants = await Promise.all(
    tokensFor(choice, slices).map(async (tokens) => {
      const kernel = await kernels.get("linear", { ...constants, TOKENS: tokens }, resources);
      return { tokens, kernel };
    }),
  );
  const largest = variants.at(-1)!;
  const bindGroup = kernels.bind(largest.kernel, resources);
  return (pass, counts) => {
    const rows = gather ? counts.logits : counts.rows;
    if (rows === 0) return;
    const { tokens, kernel } = variants.find((variant) => variant.tokens >= rows) ?? largest;
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, bindGroup);
    const workgroups = Math.ceil((groups * slices) / WORKGROUP_SIZE);
    pass.dispatchWorkgroups(workgroups, Math.ceil(rows / tokens));
  };
}

/** Of the whole matrix, not of a window: windows of a matrix give the bits that it gives whole. */
function slicesFor({ rows, numParts, columns }: PackedMatrix): number {
  const groups = (rows * numParts) / 4;
  const most = Math.min(MAX_SLICES, columns / 32 / CHUNK_BLOCKS);
  let slices = 1;
  while (slices < most && groups * slices < WANTED_THREADS) slices *= 2;
  return slices;
}

function tokensFor({ linearTokens }: KernelChoice, slices: number): readonly LinearTokens[] {
  if (slices === 1) return linearTokens;
  const few = linearTokens.filter((tokens) => tokens <= MAX_SLICED_TOKENS);
  return few.length > 0 ? few : linearTokens;
}

/** The first words of `Shape` in the shaders that read weights. */
export function windowShape(matrix: PackedMatrix, window: MatrixWindow): readonly number[] {
  return [matrix.columns / 32, window.paddedRows, window.rows, window.firstRow];
}

/** Bindings 2 and 3 of shaders/common/weights.wgsl. */
export function weightResources({ quants, meta }: MatrixWindow): Resources {
  return meta ? { 2: read(quants), 3: read(meta) } : { 2: read(quants) };
}

/** Bindings 7 to 10 of the shaders that make a new state of the stream. */
export function streamResources({ stream, gain, scaled, squares }: StreamBuffers): Resources {
  return { 7: write(stream), 8: read(gain), 9: write(scaled), 10: write(squares) };
}

/** The bits of a number as f32: shaders get floats as exact integers. */
export function floatBits(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0]!;
}
