/**
 * @file What TypeScript and the attention kernels agree on: parameters, the layout of the KV pool's
 * blocks, partial results. Strides are in bytes; addresses are of the first row.
 */
import { paramOffsets } from "./abi.ts";

/**
 * `ropeWriteKv_<f16|f32>`: turns q and k, q to `output`, k and v to the rows' slots of the pool.
 * Items are rows * (numHeads + 2 * numKvHeads).
 */
export const ROPE = paramOffsets([
  "input", // [rows][numHeads + 2 * numKvHeads][headDim] f32: q, k and v heads
  "inputStride",
  "output", // [rows][numHeads][headDim] f32
  "outputStride",
  "rowsTable", // [rows] rowWords
  "rotations", // [rows][pairs]{cos, sin} f32
  "layer", // the layer's part of the KV pool
  "numHeads",
  "numKvHeads",
  "headDim",
  "pairs", // pairs of dimensions that turn; the rest stay
  "isNeox", // 1: pairs are (i, i + pairs); 0: (2 i, 2 i + 1)
  "queryGain", // [headDim] f32, gains of an RMS norm of each query head; 0 = none
  "keyGain", // the same for k
  "epsilon", // f32 bits
  "blockSize",
]);

/** `attend_<f16|f32>`: one range of positions for the query heads of one KV head. Items are step items * numKvHeads. */
export const ATTEND = paramOffsets([
  "queries", // [rows][numHeads][headDim] f32
  "queryStride",
  "layer",
  "numHeads",
  "numKvHeads",
  "headDim",
  "scale", // f32 bits of the factor on q k
  "blockSize",
  "rowsTable", // [rows] rowWords
  "blockTables", // [slots][tableBlocks] i32
  "tableBlocks",
  "items", // [items] itemWords
  "outputs", // [rows][numHeads][headDim] f32
  "outputStride",
  "partials", // [partials][numHeads] of PARTIAL_STATE_BYTES and [headDim] f32
]);

/** `mergeAttention`: joins the partial results of rows that have several. Items are merges * numHeads. */
export const MERGE = paramOffsets([
  "merges", // [merges] mergeWords
  "partials",
  "numHeads",
  "headDim",
  "outputs", // [rows][numHeads][headDim] f32
  "outputStride",
]);

/** In `itemWords.PARTIAL`: the item is all of its row. */
export const NO_PARTIAL = -1;

/** Largest head that the kernels have scratch for. */
export const MAX_HEAD_DIM = 512;

/** Ahead of the values of a head in the partials: {maximum, sum, 0, 0} f32. */
export const PARTIAL_STATE_BYTES = 16;

/**
 * Tokens of a unit: what a layer's part of the KV pool is made of, [block][kvHead][unit of the block].
 * A unit holds K as [headDim][UNIT_SLOTS], so that the lanes of a vector of scores are tokens, then V
 * as [headDim / 8][UNIT_SLOTS][8], so that lanes are dimensions. A kernel walks both with constant
 * strides, whatever the sizes of blocks and heads.
 *
 * In f16 a group of 8 (of slots in K, of dimensions in V) lies in the order 0, 4, 1, 5, 2, 6, 3, 7:
 * the low halves of four words are 0..3 and their high halves 4..7.
 */
export const UNIT_SLOTS = 8;

/** Dimensions of a group of V; head sizes are multiples of it. */
export const DIM_GROUP = 8;
