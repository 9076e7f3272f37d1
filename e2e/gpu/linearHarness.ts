import { WeightArena } from "../../src/backends/webgpu/arena.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import type { KernelChoice } from "../../src/backends/webgpu/kernelChoice.ts";
import { type BufferLimits, bufferLimits } from "../../src/backends/webgpu/limits.ts";
import { type LinearSpec, linearDispatches } from "../../src/backends/webgpu/linear.ts";
import { HEADER_WORDS } from "../../src/backends/webgpu/stepBuffer.ts";
import { rowByteLength, type TensorInfo, type TensorType } from "../../src/weights/tensorType.ts";

/** A matrix in the file's layout. */
export interface TestMatrix {
  readonly type: TensorType;
  readonly rows: number;
  readonly columns: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export interface LinearInputs {
  /** [rows][columns] */
  readonly x: Float32Array<ArrayBuffer>;
  /** Sums of squares, [rows][columns / 4]; the norm's epsilon is EPSILON. */
  readonly squares?: Float32Array<ArrayBuffer>;
  /** [outputs] */
  readonly bias?: Float32Array<ArrayBuffer>;
}

export type LinearOutput =
  | { readonly form: "store" | "gate"; readonly stride: number; readonly firstOutput: number }
  | {
      readonly form: "add";
      readonly stream: Float32Array<ArrayBuffer>;
      readonly gain: Float32Array<ArrayBuffer>;
    };

/** Rows that run: so many, or those that `gather` names. */
export interface LinearBatch {
  readonly rows: number;
  readonly gather?: readonly number[];
}

/** What the buffers of one batch hold after it; `y` is the stream in form `add`. */
export interface LinearResult {
  readonly y: Float32Array;
  readonly scaled: Float32Array;
  readonly squares: Float32Array;
}

export const EPSILON = 1e-5;

/** What outputs hold before a run. */
export const UNTOUCHED = 1234.5;

/** Runs linear kernels of one device, with the buffers that a plan would give them. */
export class LinearHarness {
  readonly #device: GPUDevice;
  readonly #choice: KernelChoice;
  readonly #kernels: KernelCache;

  constructor(device: GPUDevice, choice: KernelChoice) {
    this.#device = device;
    this.#choice = choice;
    this.#kernels = new KernelCache(device);
  }

  /** One linear layer for each of `batches`. `parts` as in WeightArena.addMatrix. */
  async run(
    parts: readonly (readonly TestMatrix[])[],
    inputs: LinearInputs,
    output: LinearOutput,
    batches: readonly LinearBatch[],
    limits: Partial<BufferLimits> = {},
  ): Promise<readonly LinearResult[]> {
    const device = this.#device;
    const buffers: GPUBuffer[] = [];
    const storage = (data: ArrayBufferView<ArrayBuffer>): GPUBuffer => {
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
      const buffer = device.createBuffer({ size: Math.max(16, data.byteLength), usage });
      device.queue.writeBuffer(buffer, 0, data);
      buffers.push(buffer);
      return buffer;
    };

    const arena = new WeightArena(device, { ...bufferLimits(device), ...limits });
    const tensors = parts.map((part, i) => part.map((matrix, j) => tensorOf(matrix, `${i}.${j}`)));
    const matrix = arena.addMatrix(tensors);
    arena.allocate();
    for (const [i, part] of parts.entries()) {
      for (const [j, { bytes }] of part.entries())
        await writeInPieces(arena, tensors[i]![j]!, bytes);
    }

    const maxRows = Math.max(1, ...batches.map(({ rows, gather }) => gather?.length ?? rows));
    const stepBuffer = device.createBuffer({
      size: 4 * (HEADER_WORDS + 4 * maxRows),
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    buffers.push(stepBuffer);
    const stride = output.form === "add" ? output.gain.length : output.stride;
    const initial = {
      y: new Float32Array(maxRows * stride).fill(UNTOUCHED),
      scaled: new Float32Array(maxRows * stride).fill(UNTOUCHED),
      squares: new Float32Array((maxRows * stride) / 4).fill(UNTOUCHED),
    };
    if (output.form === "add") initial.y.set(output.stream.subarray(0, initial.y.length));
    const results = {
      y: storage(initial.y),
      scaled: storage(initial.scaled),
      squares: storage(initial.squares),
    };
    const spec: LinearSpec = {
      matrix,
      x: storage(inputs.x),
      gather: batches.some(({ gather }) => gather !== undefined),
      ...(inputs.squares
        ? { norm: { squares: storage(inputs.squares), width: matrix.columns, epsilon: EPSILON } }
        : {}),
      ...(inputs.bias ? { bias: { buffer: storage(inputs.bias) } } : {}),
      output:
        output.form === "add"
          ? {
              form: "add",
              stream: {
                stream: results.y,
                gain: { buffer: storage(output.gain) },
                scaled: results.scaled,
                squares: results.squares,
                width: stride,
              },
            }
          : { ...output, y: results.y },
    };
    const context = { kernels: this.#kernels, stepBuffer, choice: this.#choice };
    const dispatches = await linearDispatches(context, spec);

    const bytesEach = initial.y.byteLength + initial.scaled.byteLength + initial.squares.byteLength;
    const readback = device.createBuffer({
      size: bytesEach * batches.length,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    buffers.push(readback);
    for (const [i, { rows, gather }] of batches.entries()) {
      const words = new Uint32Array(HEADER_WORDS + 4 * maxRows);
      const logits = gather?.length ?? 0;
      words.set([rows, logits, 0, HEADER_WORDS, 0, 0, 0, 0, 0, 0, logits]);
      gather?.forEach((row, sample) => {
        words[HEADER_WORDS + 4 * sample] = row;
      });
      device.queue.writeBuffer(stepBuffer, 0, words);
      for (const name of ["y", "scaled", "squares"] as const) {
        device.queue.writeBuffer(results[name], 0, initial[name]);
      }
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      const counts = { rows, samples: logits, logits, items: 0, copies: 0, entries: 0, merges: 0 };
      for (const dispatch of dispatches) dispatch(pass, counts);
      pass.end();
      let at = i * bytesEach;
      for (const name of ["y", "scaled", "squares"] as const) {
        const { byteLength } = initial[name];
        encoder.copyBufferToBuffer(results[name], 0, readback, at, byteLength);
        at += byteLength;
      }
      device.queue.submit([encoder.finish()]);
    }
    await readback.mapAsync(GPUMapMode.READ);
    const all = new Float32Array(readback.getMappedRange().slice(0));
    for (const buffer of buffers) buffer.destroy();
    arena.dispose();
    return batches.map((_, i) => {
      const own = all.subarray((i * bytesEach) / 4);
      const squaresAt = initial.y.length + initial.scaled.length;
      return {
        y: own.subarray(0, initial.y.length),
        scaled: own.subarray(initial.y.length, squaresAt),
        squares: own.subarray(squaresAt, squaresAt + initial.squares.length),
      };
    });
  }
}

function tensorOf({ type, rows, columns, bytes }: TestMatrix, name: string): TensorInfo {
  return { name, type, rows, columns, byteOffset: 0, byteLength: bytes.length };
}

/** In pieces that start inside tiles, as chunks of a file do: 1 row, then 70 at a time. */
async function writeInPieces(
  arena: WeightArena,
  tensor: TensorInfo,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const rowBytes = rowByteLength(tensor);
  let row = 0;
  while (row < tensor.rows) {
    const end = row === 0 ? 1 : Math.min(tensor.rows, row + 70);
    await arena.writeRows(tensor, row, bytes.subarray(row * rowBytes, end * rowBytes));
    row = end;
  }
}
