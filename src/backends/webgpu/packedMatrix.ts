import { invariant, QuireError } from "../../errors.ts";
import type { TensorInfo } from "../../weights/tensorType.ts";
import { WEIGHT_FORMATS, type WeightFormat } from "./format.ts";
import { alignUp } from "./limits.ts";
import type { Region } from "./region.ts";

/** Rows of a tile: the blocks of a tile's rows lie side by side (shaders/common/weights.wgsl). */
export const TILE_ROWS = 64;

/** Rows that one binding of a matrix can see. */
export interface MatrixWindow {
  readonly firstRow: number;
  readonly rows: number;
  /** Rows with padding: a multiple of 4, the outputs of one thread. */
  readonly paddedRows: number;
  /** For each part, one after the other: [tile][block][row in tile], quants and meta alike. */
  readonly quants: Region;
  readonly meta: Region | undefined;
}

/** Where rows of a tensor went: `part` of the matrix, from its row `firstRow` on. */
export interface Placement {
  readonly part: number;
  readonly firstRow: number;
}

/**
 * Weights that one dispatch reads: tensors of one type, stacked along their rows to one matrix (q, k and v),
 * or side by side as parts of equal size (gate and up).
 */
export interface PackedMatrix {
  readonly format: WeightFormat;
  readonly columns: number;
  /** Rows of each part. */
  readonly rows: number;
  readonly numParts: number;
  readonly windows: readonly MatrixWindow[];
  readonly placements: ReadonlyMap<string, Placement>;
}

/** Index of the first block of a row within its part of a window, and how far apart its blocks are. */
export function blockIndex(
  rowInWindow: number,
  paddedRows: number,
  numBlocks: number,
): { first: number; stride: number } {
  const tileFirst = rowInWindow - (rowInWindow % TILE_ROWS);
  return {
    first: tileFirst * numBlocks + (rowInWindow % TILE_ROWS),
    stride: Math.min(TILE_ROWS, paddedRows - tileFirst),
  };
}

/** True if the tensors can share a matrix. */
export function isUniform(tensors: readonly TensorInfo[]): boolean {
  const [first] = tensors;
  return tensors.every((t) => t.type === first?.type && t.columns === first.columns);
}

/** Lays out a matrix in windows of at most `maxBindingBytes`; `reserve` gives each plane its place. */
export function layOutMatrix(
  parts: readonly (readonly TensorInfo[])[],
  maxBindingBytes: number,
  reserve: (byteLength: number) => Region,
): PackedMatrix {
  const tensors = parts.flat();
  const [tensor] = tensors;
  invariant(tensor && isUniform(tensors), "A packed matrix needs tensors of one type and width.");
  const { type, columns } = tensor;
  if (columns % 32 !== 0) {
    throw new QuireError(
      "model-unsupported",
      `The tensor ${tensor.name} has rows of ${columns} weights; WebGPU needs a multiple of 32. Use another model.`,
      { tensor: tensor.name, columns },
    );
  }
  const placements = new Map<string, Placement>();
  const partRows = parts.map((part, index) => {
    let firstRow = 0;
    for (const { name, rows } of part) {
      placements.set(name, { part: index, firstRow });
      firstRow += rows;
    }
    return firstRow;
  });
  const rows = partRows[0] ?? 0;
  invariant(
    partRows.every((count) => count === rows),
    "Parts of a packed matrix need equal rows.",
  );

  const format = WEIGHT_FORMATS[type];
  const numBlocks = columns / 32;
  const rowBytes = numBlocks * Math.max(format.quantWords, format.metaWords) * 4 * parts.length;
  const windowRows = Math.floor(maxBindingBytes / rowBytes / TILE_ROWS) * TILE_ROWS;
  if (windowRows === 0) {
    throw new QuireError(
      "webgpu-limits",
      `The adapter binds at most ${maxBindingBytes} bytes; ${TILE_ROWS} rows of the tensor ${tensor.name} need ${rowBytes * TILE_ROWS}.`,
      { limit: maxBindingBytes, need: rowBytes * TILE_ROWS },
    );
  }
  const windows: MatrixWindow[] = [];
  for (let firstRow = 0; firstRow < rows; firstRow += windowRows) {
    const count = Math.min(windowRows, rows - firstRow);
    const paddedRows = alignUp(count, 4);
    const blockCount = paddedRows * numBlocks * parts.length;
    windows.push({
      firstRow,
      rows: count,
      paddedRows,
      quants: reserve(blockCount * format.quantWords * 4),
      meta: format.metaWords === 0 ? undefined : reserve(blockCount * format.metaWords * 4),
    });
  }
  return { format, columns, rows, numParts: parts.length, windows, placements };
}
