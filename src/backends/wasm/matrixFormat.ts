/**
 * @file How weights and the activations that meet them lie in memory: what the packer, the kernels
 * and the recorder share. All work is cut into blocks of 32 along K.
 *
 * A matrix is a stream [tile of 8 rows][block]; a block of a tile is
 *
 *   quants   [vector of 4 rows][bytes], so that a 32-bit lane of a load belongs to one row
 *   scales   [row], or [half of the block][row] for q8wide
 *   minima   [row], where the format has them: weight = scale * quant + minimum
 *
 * q4: byte j of a row's word v has weight 4v + j in its low and 16 + 4v + j in its high nibble, as
 * the file has them. q8: a row's pair i = 2a + b has the weights 4a + b and 4a + b + 2, the order in
 * which int16 activations pair up for both families (see `PAIR_ORDER`). Floats lie [k][row].
 */
import type { TensorType } from "../../weights/tensorType.ts";
import { TILE_ROWS } from "./abi.ts";
import type { Simd } from "./kernelModule.ts";

/** fast = activations as int8 per 32; exact = f32 activations. */
export type Precision = "fast" | "exact";

export type MatrixFormat = "q4" | "q4wide" | "q8" | "q8wide" | "f16" | "bf16" | "f32";

/** Weights of a block along K. */
export const BLOCK_COLUMNS = 32;
/** Rows of a vector: its 32-bit lanes. */
export const VECTOR_ROWS = 4;
/** Vectors of a tile. */
export const TILE_VECTORS = TILE_ROWS / VECTOR_ROWS;

export interface MatrixLayout {
  readonly quantBits: 4 | 8 | 16 | 32;
  /** Bytes of a scale or minimum; 0 = floats, without either. Two-byte ones are f16, others f32. */
  readonly scaleBytes: 0 | 2 | 4;
  /** Scales of a row in a block, each for an equal part of its weights. */
  readonly scales: 0 | 1 | 2;
  readonly hasMinimum: boolean;
}

export const MATRIX_LAYOUTS: Readonly<Record<MatrixFormat, MatrixLayout>> = {
  q4: { quantBits: 4, scaleBytes: 2, scales: 1, hasMinimum: true },
  q4wide: { quantBits: 4, scaleBytes: 4, scales: 1, hasMinimum: true },
  q8: { quantBits: 8, scaleBytes: 2, scales: 1, hasMinimum: false },
  q8wide: { quantBits: 8, scaleBytes: 4, scales: 2, hasMinimum: true },
  f16: { quantBits: 16, scaleBytes: 0, scales: 0, hasMinimum: false },
  bf16: { quantBits: 16, scaleBytes: 0, scales: 0, hasMinimum: false },
  f32: { quantBits: 32, scaleBytes: 0, scales: 0, hasMinimum: false },
};

export const MATRIX_FORMATS = Object.keys(MATRIX_LAYOUTS) as readonly MatrixFormat[];

/** The format of every tensor type. */
export const FORMAT_OF: Readonly<Record<TensorType, MatrixFormat>> = {
  Q4_0: "q4",
  Q4_1: "q4",
  Q4_K: "q4wide",
  Q5_0: "q8",
  Q5_1: "q8wide",
  Q5_K: "q8wide",
  Q6_K: "q8wide",
  Q8_0: "q8",
  F16: "f16",
  BF16: "bf16",
  F32: "f32",
};

/** Byte offsets in a tile's block, and its size. */
export interface BlockOffsets {
  /** From one vector's quants to the next one's. */
  readonly vectorBytes: number;
  readonly scales: number;
  readonly minima: number;
  readonly byteLength: number;
}

export function blockOffsets(format: MatrixFormat): BlockOffsets {
  const { quantBits, scaleBytes, scales, hasMinimum } = MATRIX_LAYOUTS[format];
  // Floats lie [k][row of the tile].
  const vectorColumns = quantBits > 8 ? 1 : BLOCK_COLUMNS;
  const vectorBytes = (VECTOR_ROWS * vectorColumns * quantBits) / 8;
  const scalesAt = (TILE_ROWS * BLOCK_COLUMNS * quantBits) / 8;
  const minima = scalesAt + TILE_ROWS * scales * scaleBytes;
  const byteLength = minima + (hasMinimum ? TILE_ROWS * scaleBytes : 0);
  return { vectorBytes, scales: scalesAt, minima, byteLength };
}

/**
 * How a block of activations is stored:
 *
 * - int8: as bytes; int16: as 16-bit numbers in `PAIR_ORDER`. Both are x / dx with dx = max|x| / 127.
 * - nibbles, bytes: f32 times `NIBBLE_SCALES`, `BYTE_SCALES`: kernels leave quants where they lie in
 *   their words, which multiplies them by powers of two.
 * - floats: f32.
 */
export type ActivationFormat = "int8" | "int16" | "nibbles" | "bytes" | "floats";

/** Bytes of a row's block: its values, and what follows the values of all rows of a panel. */
export const ACTIVATION_BYTES: Readonly<
  Record<ActivationFormat, { readonly values: number; readonly tail: number }>
> = {
  int8: { values: 32, tail: 16 },
  int16: { values: 64, tail: 16 },
  nibbles: { values: 128, tail: 4 },
  bytes: { values: 128, tail: 4 },
  floats: { values: 128, tail: 0 },
};

/** Words of the tail of int8 and int16; that of nibbles and bytes is the sum of the f32 values alone. */
export const tailWords = {
  /** dx * 2^80, for scales in f16 (see `HALF_SHIFT`). */
  HALF_STEP: 0,
  /** dx * (sum of the integers) * 2^80 */
  HALF_SUM: 4,
  /** dx */
  STEP: 8,
  /** dx * (sum of the integers) */
  SUM: 12,
} as const;

/**
 * The bits of an f16 shifted left by 13 are, as f32, its value times 2^-112. Kernels do not undo that
 * weight by weight: dx carries 2^80 of it, the finished total the other 2^32. All of it in dx would
 * overflow from activations of 2^9 on, this way it takes 2^41 (`STEP_MAX`).
 */
export const HALF_SHIFT = { SCALE: 2 ** -112, STEP: 2 ** 80, TOTAL: 2 ** 32 } as const;

/** Largest dx: 32 * 128 * dx * 2^80 is still finite. Larger activations are held at 127 dx. */
export const STEP_MAX = 2 ** 34;

/** Largest |x| of a block that counts as all zeros: 127 / max is still finite above. */
export const ACTIVATION_MIN = 2 ** -100;

/** Order of each 4 int16 activations: 32-bit pairs (0, 2) and (1, 3). */
export const PAIR_ORDER = [0, 2, 1, 3] as const;

/** Factors of the activations 4v + j and 16 + 4v + j: nibbles lie at bits 8j and 8j + 4, the top one at 0. */
export const NIBBLE_SCALES = {
  low: [1, 2 ** -8, 2 ** -16, 2 ** -24],
  high: [2 ** -4, 2 ** -12, 2 ** -20, 1],
} as const;

/** Factors of each 4 activations: the weights 0 and 1 lie in the upper half of their words. */
export const BYTE_SCALES = [2 ** -16, 2 ** -16, 1, 1] as const;

/** What a matrix of `format` is multiplied with. */
export function activationFormat(
  format: MatrixFormat,
  precision: Precision,
  simd: Simd,
): ActivationFormat {
  const { quantBits } = MATRIX_LAYOUTS[format];
  if (quantBits > 8) return "floats";
  if (precision === "exact") return quantBits === 4 ? "nibbles" : "bytes";
  return quantBits === 4 && simd === "relaxed" ? "int8" : "int16";
}

/** Bytes a row of activations takes in the records. */
export function activationBytes(format: ActivationFormat, columns: number): number {
  const { values, tail } = ACTIVATION_BYTES[format];
  return (columns / BLOCK_COLUMNS) * (values + tail);
}

/** The kernel of LINEAR. Formats of floats have one for both precisions. */
export function linearKernelName(format: MatrixFormat, precision: Precision): string {
  const kind = MATRIX_LAYOUTS[format].quantBits > 8 ? "exact" : precision;
  return `linear_${format}_${kind}`;
}

/** Where activations come from: as they are, through an RMS norm, or as silu(gate) * up. */
export type ActivationSource = "plain" | "normed" | "gated";

/** The kernel of QUANTIZE. */
export function quantizeKernelName(source: ActivationSource, format: ActivationFormat): string {
  return `quantize_${source}_${format}`;
}

/** The kernel of EMBED. */
export function embedKernelName(format: MatrixFormat): string {
  return `embed_${format}`;
}
