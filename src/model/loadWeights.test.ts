import { describe, expect, test } from "vitest";
import type { Plan } from "../backends/ops.ts";
import { QuireError, throwIfAborted } from "../errors.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import type { TensorInfo } from "../weights/tensorType.ts";
import { CHUNK_BYTES, loadWeights, MAX_PENDING_BYTES, TILE_ROWS } from "./loadWeights.ts";

const MIB = 2 ** 20;

/** F32 tensors of the given shapes, one after the other in the file, listed last first. */
function makeTensors(shapes: readonly (readonly [rows: number, columns: number])[]): TensorInfo[] {
  let byteOffset = 64;
  const tensors = shapes.map(([rows, columns], i): TensorInfo => {
    const byteLength = rows * columns * 4;
    const tensor = { name: `t${i}`, type: "F32", columns, rows, byteOffset, byteLength } as const;
    byteOffset += byteLength;
    return tensor;
  });
  return tensors.reverse();
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** A source and a plan that count the bytes which were asked for and not yet taken. */
class Instruments {
  readonly written: { tensor: TensorInfo; rowStart: number; byteLength: number }[] = [];
  readonly reads: { offset: number; byteLength: number }[] = [];
  pendingBytes = 0;
  mostPendingBytes = 0;
  writesWithReadAhead = 0;
  readonly plan: Pick<Plan, "tensors" | "writeRows">;
  readonly source: ByteSource;

  constructor(tensors: readonly TensorInfo[]) {
    this.plan = {
      tensors,
      writeRows: async (tensor, rowStart, bytes) => {
        if (this.pendingBytes > bytes.length) this.writesWithReadAhead++;
        // A slow plan: everything that can be read meanwhile is read.
        for (let i = 0; i < 5; i++) await nextTurn();
        this.pendingBytes -= bytes.length;
        this.written.push({ tensor, rowStart, byteLength: bytes.length });
      },
    };
    this.source = {
      name: "instrumented",
      byteLength: 2 ** 40,
      read: async (offset, byteLength, signal) => {
        throwIfAborted(signal, "Reading");
        this.reads.push({ offset, byteLength });
        this.pendingBytes += byteLength;
        this.mostPendingBytes = Math.max(this.mostPendingBytes, this.pendingBytes);
        await nextTurn();
        throwIfAborted(signal, "Reading");
        return new Uint8Array(byteLength);
      },
    };
  }
}

describe("loadWeights", () => {
  test("reads all tensors in file order in chunks of whole rows, ahead and within the bound", async () => {
    const shapes = [
      [1, 576],
      [7001, 1000], // 26.7 MiB: four chunks of 2,048 rows at most
      [1, 1],
      [200, 2 ** 16], // rows of 256 KiB: a tile of them is over a chunk, and two tiles are within the bound
      [100, 2 ** 16 + 2 ** 8], // rows of 257 KiB: two tiles are over the bound
      [3, 2.5 * MIB], // rows of 10 MiB: over a chunk
      [2, 5 * MIB], // rows of 20 MiB: two of them are over the bound
      [100, 100],
    ] as const;
    const instruments = new Instruments(makeTensors(shapes));
    const progress: number[] = [];
    let total = 0;
    await loadWeights(instruments.plan, instruments.source, {
      onProgress: ({ loadedBytes, totalBytes }) => {
        progress.push(loadedBytes);
        total = totalBytes;
      },
    });

    const { written, reads } = instruments;
    let next = 64;
    for (const { offset, byteLength } of reads) {
      expect(offset).toBe(next);
      next += byteLength;
    }
    const rows = new Map<string, number>();
    for (const { tensor, rowStart, byteLength } of written) {
      expect(rowStart).toBe(rows.get(tensor.name) ?? 0);
      const numRows = byteLength / (4 * tensor.columns);
      expect(Number.isInteger(numRows)).toBe(true);
      if (numRows > 1) expect(byteLength).toBeLessThanOrEqual(2 * CHUNK_BYTES);
      // Within a tensor a chunk starts with a tile, but where rows are too long for that.
      if (tensor.columns <= 2 ** 16) expect(rowStart % TILE_ROWS).toBe(0);
      rows.set(tensor.name, rowStart + numRows);
    }
    expect([...rows]).toEqual(shapes.map(([numRows], i) => [`t${i}`, numRows]));

    expect(instruments.mostPendingBytes).toBeLessThanOrEqual(MAX_PENDING_BYTES);
    expect(instruments.mostPendingBytes).toBe(32 * MIB); // two tiles of rows of 256 KiB
    expect(instruments.pendingBytes).toBe(0);
    // all but the row of 20 MiB that stands before another, and the last chunk
    expect(instruments.writesWithReadAhead).toBe(written.length - 2);

    expect(progress.at(-1)).toBe(total);
    expect(total).toBe(shapes.reduce((sum, [r, c]) => sum + 4 * r * c, 0));
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  });

  test("usual tensors keep two chunks pending at most", async () => {
    const instruments = new Instruments(
      makeTensors([
        [49_152, 576],
        [1536, 576],
        [576, 1536],
      ]),
    );
    await loadWeights(instruments.plan, instruments.source);
    expect(instruments.mostPendingBytes).toBeLessThanOrEqual(2 * CHUNK_BYTES);
  });

  test("an abort stops it between chunks and in a read", async () => {
    for (const writesBefore of [0, 1, 3]) {
      const instruments = new Instruments(makeTensors([[9000, 1000]]));
      const controller = new AbortController();
      const loading = loadWeights(instruments.plan, instruments.source, {
        signal: controller.signal,
        onProgress: () => {
          if (instruments.written.length === writesBefore) controller.abort();
        },
      });
      if (writesBefore === 0) controller.abort();
      await expect(loading).rejects.toMatchObject({ code: "aborted" });
      expect(instruments.written).toHaveLength(writesBefore);
    }
  });

  test("an error of the plan stops the read ahead, an error of the source surfaces", async () => {
    const failed = new QuireError("out-of-memory", "The test has no memory.");
    const instruments = new Instruments(makeTensors([[9000, 1000]]));
    let signalOfRead: AbortSignal | undefined;
    const source: ByteSource = {
      ...instruments.source,
      read: (offset, byteLength, signal) => {
        signalOfRead = signal;
        return instruments.source.read(offset, byteLength, signal);
      },
    };
    const plan = { ...instruments.plan, writeRows: () => Promise.reject(failed) };
    await expect(loadWeights(plan, source)).rejects.toBe(failed);
    expect(signalOfRead?.aborted).toBe(true);

    const broken: ByteSource = { ...source, read: () => Promise.reject(failed) };
    await expect(loadWeights(instruments.plan, broken)).rejects.toBe(failed);
  });
});
