import { paramOffsets } from "./abi.ts";

/** y = W x (+ b) (+ y). Items are tiles of the matrix. */
export const LINEAR = paramOffsets([
  "weights", // address of the packed matrix
  "blocks", // of a row: columns / 32
  "records", // address of the quantised activations
  "output", // address of the first row, f32; whole tiles are written
  "outputStride", // bytes between rows
  "bias", // address of f32[paddedRows]; 0 = none
  "add", // 1 = add to what the output holds
  "rows", // ADDRESS of the number of rows
]);

/**
 * Rows of f32 to records of activations. Items are rows * segments.
 *
 * Rows are cut into panels (PANEL_ROWS); panel p starts at records + its first row * bytes of a row,
 * and has for each block [rows of the panel]{values}, then [rows of the panel]{tail}.
 */
export const QUANTIZE = paramOffsets([
  "input", // address of the first row
  "inputStride", // bytes between rows
  "blocks", // of a row
  "gain", // normed: address of f32[columns]
  "epsilon", // normed: bits of an f32
  "up", // gated: byte offset of the up half in a row
  "records", // address of the records
  "rows", // ADDRESS of the number of rows
  "gather", // address of records of 16 bytes, the first word of each the row to read; 0 = all rows in order
  "segments", // pieces a row is cut into, each of ceil(blocks / segments) blocks
]);

/** Rows of the embedding matrix as f32. Items are the rows of the step. */
export const EMBED = paramOffsets([
  "weights", // address of the packed matrix
  "blocks", // of a row
  "output", // address of the first row
  "outputStride", // bytes between rows
  "rowsTable", // address of the step's rows, see rowWords
]);
