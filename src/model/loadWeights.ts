import type { Plan } from "../backends/ops.ts";
import { throwIfAborted } from "../errors.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import { rowByteLength, type TensorInfo } from "../weights/tensorType.ts";

/** Bytes of a chunk, where whole tiles of rows are no more than that. */
export const CHUNK_BYTES = 8 * 2 ** 20;

/**
 * Back ends pack rows in tiles of so many, or of a part of that. A chunk that ends within a tile costs the
 * GPU a write for each block of the tile's columns, twice: for its own rows and for the next chunk's.
 */
export const TILE_ROWS = 64;

/** Bytes that are read or being read and that the plan has not taken yet stay at or below this. */
export const MAX_PENDING_BYTES = 32 * 2 ** 20;

export interface LoadProgress {
  /** Bytes of weights that the plan has taken. */
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

export interface LoadWeightsOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
}

interface Chunk {
  readonly tensor: TensorInfo;
  readonly rowStart: number;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/**
 * Streams every tensor of the plan from the file, in the file's order. One chunk is read ahead while
 * the plan takes the one before it. Throws what the source and the plan throw, and `aborted`.
 */
export async function loadWeights(
  plan: Pick<Plan, "tensors" | "writeRows">,
  source: ByteSource,
  { signal, onProgress }: LoadWeightsOptions = {},
): Promise<void> {
  // A failure on one side stops a read that is under way on the other.
  const failure = new AbortController();
  const readSignal = signal ? AbortSignal.any([signal, failure.signal]) : failure.signal;
  const read = (chunk: Chunk): Promise<Uint8Array<ArrayBuffer>> => {
    const bytes = source.read(chunk.byteOffset, chunk.byteLength, readSignal);
    // It may fail while the chunk before it is being written: it is awaited, but only later.
    bytes.catch(() => {});
    return bytes;
  };

  const chunks = listChunks(plan.tensors);
  const totalBytes = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  let loadedBytes = 0;
  let ahead: Promise<Uint8Array<ArrayBuffer>> | undefined;
  try {
    for (const [i, chunk] of chunks.entries()) {
      throwIfAborted(signal, "Loading the model");
      const bytes = await (ahead ?? read(chunk));
      const next = chunks[i + 1];
      const fits = next && chunk.byteLength + next.byteLength <= MAX_PENDING_BYTES;
      ahead = fits ? read(next) : undefined;
      await plan.writeRows(chunk.tensor, chunk.rowStart, bytes);
      loadedBytes += chunk.byteLength;
      onProgress?.({ loadedBytes, totalBytes });
    }
  } catch (error) {
    failure.abort(error);
    throw error;
  }
}

function listChunks(tensors: readonly TensorInfo[]): readonly Chunk[] {
  const inFileOrder = [...tensors].sort((a, b) => a.byteOffset - b.byteOffset);
  return inFileOrder.flatMap((tensor) => {
    const rowBytes = rowByteLength(tensor);
    const rowsPerChunk = chunkRows(rowBytes);
    return Array.from({ length: Math.ceil(tensor.rows / rowsPerChunk) }, (_, i): Chunk => {
      const rowStart = i * rowsPerChunk;
      return {
        tensor,
        rowStart,
        byteOffset: tensor.byteOffset + rowStart * rowBytes,
        byteLength: Math.min(rowsPerChunk, tensor.rows - rowStart) * rowBytes,
      };
    });
  });
}

/** Whole tiles, or where two chunks of one are too much to have pending, whole rows. */
function chunkRows(rowBytes: number): number {
  const rows = Math.floor(CHUNK_BYTES / rowBytes);
  if (rows >= TILE_ROWS) return rows - (rows % TILE_ROWS);
  return 2 * TILE_ROWS * rowBytes <= MAX_PENDING_BYTES ? TILE_ROWS : Math.max(1, rows);
}
