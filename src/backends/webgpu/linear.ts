import type { Dispatch } from "./dispatch.ts";
import { type KernelCache, type Resource, type Resources, read, uniform, write } from "./kernel.ts";
import type { KernelChoice } from "./kernelChoice.ts";
import { WORKGROUP_SIZE } from "./limits.ts";
import { CHUNK_BLOCKS, slicesFor, variantOf, variantsFor } from "./linearVariants.ts";
import type { MatrixWindow, PackedMatrix } from "./packedMatrix.ts";
import { HEADER_WORDS } from "./stepBuffer.ts";

/** Vectors of 4 weights in a block. */
const BLOCK_VECTORS = 8;

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
  const slices = slicesFor(choice, matrix);
  const constants: Record<string, number> = {
    ...matrix.format.constants,
    FOUR: 4,
    CHUNK_BLOCKS,
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
    constants["NORM_SLICES"] = slices;
    resources[5] = read(spec.norm.squares);
  }
  if (spec.bias) {
    constants["BIAS"] = 1;
    resources[6] = read(spec.bias);
  }
  if (output.form === "add") Object.assign(resources, streamResources(output.stream));
  else resources[7] = write(output.y);
  const compiled = await Promise.all(
    variantsFor(choice, slices).map(async (variant) => {
      const { tokens, slices } = variant;
      const own = { ...constants, ...(slices > 1 ? { SLICES: slices } : {}), TOKENS: tokens };
      return { ...variant, kernel: await kernels.get("linear", own, resources) };
    }),
  );
  const bindGroup = kernels.bind(compiled[0]!.kernel, resources);
  return (pass, counts) => {
    const rows = gather ? counts.logits : counts.rows;
    if (rows === 0) return;
    const { tokens, slices, kernel } = variantOf(compiled, rows, groups);
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, bindGroup);
    const workgroups = Math.ceil((groups * slices) / WORKGROUP_SIZE);
    pass.dispatchWorkgroups(workgroups, Math.ceil(rows / tokens));
  };
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
