import { invariant } from "../../errors.ts";
import { dequantizeRows } from "../../weights/dequantize.ts";
import { rowByteLength, type TensorInfo } from "../../weights/tensorType.ts";
import { alignUp, BINDING_ALIGNMENT, type BufferLimits } from "./limits.ts";
import { blockIndex, layOutMatrix, type PackedMatrix, TILE_ROWS } from "./packedMatrix.ts";
import type { Region } from "./region.ts";
import { repackRows } from "./repack.ts";

/** Bytes written between two waits for the queue: bounds the copies that the browser holds. */
const UPLOAD_WINDOW_BYTES = 16 * 2 ** 20;

/** Bytes repacked at once: bounds the copy of weights on the way to the GPU. */
const REPACK_BYTES = 4 * 2 ** 20;

/** Largest buffer: drivers find no room for much larger pieces where they would for several of this size. */
const MAX_WEIGHT_BUFFER_BYTES = 2 ** 30;

/** All weights of a plan, in few GPU buffers. Places are reserved first, then allocated at once. */
export class WeightArena {
  readonly #device: GPUDevice;
  readonly #limits: BufferLimits;
  readonly #sizes: number[] = []; // bytes reserved in each buffer to come
  readonly #buffers: GPUBuffer[] = [];
  readonly #matrices: PackedMatrix[] = [];
  readonly #vectors = new Map<string, { region: Region; firstElement: number }[]>();
  #unawaitedBytes = 0;

  constructor(device: GPUDevice, limits: BufferLimits) {
    this.#device = device;
    this.#limits = {
      maxBindingBytes: Math.min(limits.maxBindingBytes, MAX_WEIGHT_BUFFER_BYTES),
      maxBufferBytes: Math.min(limits.maxBufferBytes, MAX_WEIGHT_BUFFER_BYTES),
    };
  }

  /** Reserves a matrix: parts of stacked tensors (see PackedMatrix). */
  addMatrix(parts: readonly (readonly TensorInfo[])[]): PackedMatrix {
    const matrix = layOutMatrix(parts, this.#limits.maxBindingBytes, (n) => this.#reserve(n));
    this.#matrices.push(matrix);
    return matrix;
  }

  /** Reserves vectors one after the other, as f32 [sum of lengths]; undefined ones stay zero. */
  addVectors(vectors: readonly { tensor: TensorInfo | undefined; length: number }[]): Region {
    const region = this.#reserve(vectors.reduce((sum, { length }) => sum + length, 0) * 4);
    let firstElement = 0;
    for (const { tensor, length } of vectors) {
      if (tensor) {
        const uses = this.#vectors.get(tensor.name) ?? [];
        this.#vectors.set(tensor.name, [...uses, { region, firstElement }]);
      }
      firstElement += length;
    }
    return region;
  }

  get byteLength(): number {
    return this.#sizes.reduce((sum, size) => sum + size, 0);
  }

  /** Makes the buffers. The caller watches for out-of-memory with an error scope. */
  allocate(): GPUBuffer[] {
    for (const [i, size] of this.#sizes.entries()) {
      this.#buffers.push(
        this.#device.createBuffer({
          label: `weights ${i}`,
          size,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
        }),
      );
    }
    return this.#buffers;
  }

  /** Plan.writeRows. */
  async writeRows(
    tensor: TensorInfo,
    rowStart: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    for (const { region, firstElement } of this.#vectors.get(tensor.name) ?? []) {
      const numRows = bytes.length / rowByteLength(tensor);
      const values = dequantizeRows(tensor.type, bytes, tensor.columns, numRows);
      this.#write(region, (firstElement + rowStart * tensor.columns) * 4, values);
    }
    for (const matrix of this.#matrices) {
      if (matrix.placements.has(tensor.name)) this.#writeMatrix(matrix, tensor, rowStart, bytes);
    }
    if (this.#unawaitedBytes >= UPLOAD_WINDOW_BYTES) {
      this.#unawaitedBytes = 0;
      await this.#device.queue.onSubmittedWorkDone();
    }
  }

  dispose(): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }

  #reserve(byteLength: number): Region {
    const size = alignUp(Math.max(byteLength, 4), 4);
    const last = this.#sizes.length - 1;
    const end = alignUp(this.#sizes[last] ?? 0, BINDING_ALIGNMENT);
    const fits = last >= 0 && end + size <= this.#limits.maxBufferBytes;
    const index = fits ? last : last + 1;
    const offset = fits ? end : 0;
    this.#sizes[index] = offset + size;
    const buffers = this.#buffers;
    return {
      get buffer() {
        const buffer = buffers[index];
        invariant(buffer, "The weight arena is used before it is allocated.");
        return buffer;
      },
      offset,
      size,
    };
  }

  #writeMatrix(
    matrix: PackedMatrix,
    tensor: TensorInfo,
    rowStart: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): void {
    const { part, firstRow } = matrix.placements.get(tensor.name)!;
    const { quantWords, metaWords } = matrix.format;
    const numBlocks = matrix.columns / 32;
    const maxRows = Math.max(
      TILE_ROWS,
      Math.floor(REPACK_BYTES / (numBlocks * quantWords * 4) / TILE_ROWS) * TILE_ROWS,
    );
    const first = firstRow + rowStart; // in the matrix
    const end = first + bytes.length / rowByteLength(tensor);
    for (const window of matrix.windows) {
      const windowEnd = Math.min(end, window.firstRow + window.rows);
      let row = Math.max(first, window.firstRow);
      while (row < windowEnd) {
        const inWindow = row - window.firstRow;
        const { first: index, stride } = blockIndex(inWindow, window.paddedRows, numBlocks);
        const partBase = part * window.paddedRows * numBlocks;
        const startsTile = inWindow % TILE_ROWS === 0;
        const fullTiles = startsTile && stride === TILE_ROWS ? windowEnd - row >= TILE_ROWS : false;
        // Whole tiles go in one write; what is left of a tile, in one write for each block column.
        const numRows = fullTiles
          ? Math.min(maxRows, Math.floor((windowEnd - row) / TILE_ROWS) * TILE_ROWS)
          : Math.min(windowEnd - row, TILE_ROWS - (inWindow % TILE_ROWS));
        const planes = {
          quants: new Uint32Array(numRows * numBlocks * quantWords),
          meta: new Uint32Array(numRows * numBlocks * metaWords),
        };
        const tile = fullTiles ? TILE_ROWS : numRows;
        for (let done = 0; done < numRows; done += tile) {
          repackRows(tensor, bytes, row + done - first, tile, planes, done * numBlocks, tile);
        }
        const columns = fullTiles ? 1 : numBlocks;
        const chunk = (numRows * numBlocks) / columns; // blocks a write
        for (let kb = 0; kb < columns; kb++) {
          const at = partBase + index + kb * stride;
          const from = kb * chunk;
          const quants = planes.quants.subarray(from * quantWords, (from + chunk) * quantWords);
          this.#write(window.quants, at * quantWords * 4, quants);
          if (window.meta) {
            const meta = planes.meta.subarray(from * metaWords, (from + chunk) * metaWords);
            this.#write(window.meta, at * metaWords * 4, meta);
          }
        }
        row += numRows;
      }
    }
  }

  #write(
    region: Region,
    byteOffset: number,
    data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBufferLike>,
  ): void {
    this.#device.queue.writeBuffer(
      region.buffer,
      region.offset + byteOffset,
      data as Uint32Array<ArrayBuffer>,
    );
    this.#unawaitedBytes += data.byteLength;
  }
}
