import { invariant, QuireError } from "../../errors.ts";
import { rowByteLength, type TensorInfo } from "../../weights/tensorType.ts";
import { TILE_ROWS } from "./abi.ts";
import { BLOCK_COLUMNS, blockOffsets, FORMAT_OF, type MatrixFormat } from "./matrixFormat.ts";
import { PACKERS } from "./repack.ts";

/** Weights that one command reads: tensors of one type, stacked along their rows (q, k and v; gate and up). */
export interface PackedMatrix {
  readonly format: MatrixFormat;
  readonly columns: number;
  readonly rows: number;
  /** Rows of whole tiles; the padding is zeros. */
  readonly paddedRows: number;
  readonly tiles: number;
  readonly byteLength: number;
  /** First row of each tensor, by name. */
  readonly placements: ReadonlyMap<string, number>;
}

/** True if the tensors can share a matrix. */
export function isUniform(tensors: readonly TensorInfo[]): boolean {
  const [first] = tensors;
  return tensors.every(({ type, columns }) => type === first?.type && columns === first.columns);
}

/** Throws `model-unsupported` if rows are not whole blocks. */
export function layOutMatrix(tensors: readonly TensorInfo[]): PackedMatrix {
  const [tensor] = tensors;
  invariant(tensor && isUniform(tensors), "A packed matrix needs tensors of one type and width.");
  const { type, columns } = tensor;
  if (columns % BLOCK_COLUMNS !== 0) {
    throw new QuireError(
      "model-unsupported",
      `The tensor ${tensor.name} has rows of ${columns} weights; the WASM back end needs a multiple of ${BLOCK_COLUMNS}. Use another model.`,
      { tensor: tensor.name, columns },
    );
  }
  const placements = new Map<string, number>();
  let rows = 0;
  for (const stacked of tensors) {
    placements.set(stacked.name, rows);
    rows += stacked.rows;
  }
  const format = FORMAT_OF[type];
  const tiles = Math.ceil(rows / TILE_ROWS);
  const byteLength = tiles * (columns / BLOCK_COLUMNS) * blockOffsets(format).byteLength;
  return { format, columns, rows, paddedRows: tiles * TILE_ROWS, tiles, byteLength, placements };
}

/**
 * Packs rows [rowStart, rowStart + n) of a tensor, given as the file has them, into the bytes of its
 * matrix, which are zeros at first and start at a multiple of 16. n follows from bytes.length.
 * Throws `model-invalid` if a scale does not fit the format.
 */
export function packRows(
  matrix: PackedMatrix,
  target: Uint8Array,
  tensor: Pick<TensorInfo, "name" | "type" | "columns">,
  rowStart: number,
  bytes: Uint8Array,
): void {
  const firstRow = matrix.placements.get(tensor.name);
  const rowBytes = rowByteLength(tensor);
  const numRows = bytes.length / rowBytes;
  invariant(
    firstRow !== undefined && FORMAT_OF[tensor.type] === matrix.format,
    `The tensor "${tensor.name}" is not part of the matrix.`,
  );
  invariant(
    Number.isInteger(numRows) && target.length === matrix.byteLength,
    `${bytes.length} bytes are not whole rows of "${tensor.name}".`,
  );
  // Packers read the file's words, which need their alignment.
  const file = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const pack = PACKERS[tensor.type](file, target, tensor.name);
  const numBlocks = matrix.columns / BLOCK_COLUMNS;
  const blockBytes = blockOffsets(matrix.format).byteLength;
  for (let i = 0; i < numRows; i++) {
    const row = firstRow + rowStart + i;
    const tile = Math.floor(row / TILE_ROWS);
    pack(i * rowBytes, tile * numBlocks * blockBytes, row % TILE_ROWS, numBlocks);
  }
}
