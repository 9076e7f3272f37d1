import { TENSOR_TYPES, type TensorType } from "../../src/weights/tensorType.ts";
import type { Random } from "../fixtures/random.ts";

/** Byte offsets of the f16 scales and minima in a file block; whole formats of f16 have one a weight. */
const HALVES: Readonly<Record<Exclude<TensorType, "F32" | "BF16">, readonly number[]>> = {
  F16: [0],
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
};

/**
 * Any bits that a file may hold, but infinities and NaN: quants of all values, scales of all sizes. By row in
 * turn: ordinary scales; subnormal f16 scales (small f32 and bf16 weights); zeros of both signs among
 * ordinary ones; scales from 2^-10 to 2^5 side by side.
 */
export function rawBlocks(
  random: Random,
  type: TensorType,
  rows: number,
  columns: number,
): Uint8Array<ArrayBuffer> {
  const { blockSize, blockBytes } = TENSOR_TYPES[type];
  const blocksPerRow = columns / blockSize;
  const bytes = new Uint8Array(rows * blocksPerRow * blockBytes);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.bits() >>> 24;
  for (let block = 0; block < rows * blocksPerRow; block++) {
    const kind = Math.floor(block / blocksPerRow) % 4;
    const at = block * blockBytes;
    if (type === "F32" || type === "BF16") {
      const half = wideHalf(random, kind);
      if (type === "BF16") view.setUint16(at, half, true);
      else view.setUint16(at + 2, half, true); // mantissa's lower half stays random
      if (type === "F32" && (half & 0x7fff) === 0) view.setUint16(at, 0, true);
    } else {
      for (const offset of HALVES[type]) view.setUint16(at + offset, half(random, kind), true);
    }
  }
  return bytes;
}

function half(random: Random, kind: number): number {
  const sign = random.integer(0, 1) << 15;
  const mantissa = random.integer(0, 1023);
  if (kind === 1) return sign | Math.max(1, mantissa);
  if (kind === 2 && random.integer(0, 2) === 0) return sign;
  const exponent = kind === 3 ? random.integer(5, 20) : random.integer(9, 11);
  return sign | (exponent << 10) | mantissa;
}

/** The upper half of an f32. */
function wideHalf(random: Random, kind: number): number {
  const sign = random.integer(0, 1) << 15;
  const mantissa = random.integer(0, 127);
  if (kind === 2 && random.integer(0, 2) === 0) return sign;
  const exponent =
    kind === 1
      ? random.integer(90, 100)
      : kind === 3
        ? random.integer(117, 132)
        : random.integer(121, 123);
  return sign | (exponent << 7) | mantissa;
}
