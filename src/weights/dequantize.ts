/**
 * @file ggml's block formats as f32. The results equal ggml's bit for bit, in whatever order the
 * products are taken: a scale has 11 significant bits, a sub-scale at most 7 and a quant at most 6,
 * so every product is exact in f32 and each weight is rounded once, when it is stored.
 */
import { invariant } from "../errors.ts";
import { halfToNumber } from "./half.ts";
import { rowByteLength, TENSOR_TYPES, type TensorType } from "./tensorType.ts";

/**
 * Rows of a tensor as f32, [rows, columns].
 *
 * `bytes` are the rows as the file has them, `columns` a multiple of the type's block size.
 */
export function dequantizeRows(
  type: TensorType,
  bytes: Uint8Array,
  columns: number,
  rows: number,
): Float32Array<ArrayBuffer> {
  const { blockSize, blockBytes } = TENSOR_TYPES[type];
  const byteLength = rows * rowByteLength({ type, columns });
  invariant(
    columns % blockSize === 0 && bytes.byteLength === byteLength,
    `${rows} rows of ${columns} ${type} weights were given in ${bytes.byteLength} bytes.`,
  );
  if (type === "F32") return new Float32Array(new Uint8Array(bytes).buffer);
  const weights = new Float32Array(rows * columns);
  if (type === "BF16") {
    // As integers, so that the payload of a NaN survives.
    const bits = new Uint32Array(weights.buffer);
    for (let i = 0; i < bits.length; i++) bits[i] = uint16(bytes, 2 * i) << 16;
    return weights;
  }
  const decode = DECODERS[type];
  for (let at = 0, to = 0; at < byteLength; at += blockBytes, to += blockSize) {
    decode(bytes, at, weights, to);
  }
  return weights;
}

/** Writes the block of `bytes` at `at` to `out` from `to` on. */
type DecodeBlock = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

const DECODERS: Record<Exclude<TensorType, "F32" | "BF16">, DecodeBlock> = {
  F16(bytes, at, out, to) {
    out[to] = half(bytes, at);
  },

  // f16 d; u8 quants[16]: low nibbles are weights 0..15, high ones 16..31
  Q4_0(bytes, at, out, to) {
    const d = half(bytes, at);
    for (let i = 0; i < 16; i++) {
      const quants = bytes[at + 2 + i]!;
      out[to + i] = d * ((quants & 15) - 8);
      out[to + 16 + i] = d * ((quants >> 4) - 8);
    }
  },

  // f16 d, m; u8 quants[16]
  Q4_1(bytes, at, out, to) {
    const d = half(bytes, at);
    const m = half(bytes, at + 2);
    for (let i = 0; i < 16; i++) {
      const quants = bytes[at + 4 + i]!;
      out[to + i] = d * (quants & 15) + m;
      out[to + 16 + i] = d * (quants >> 4) + m;
    }
  },

  // f16 d; u32 high: bit i is bit 4 of weight i; u8 quants[16]
  Q5_0(bytes, at, out, to) {
    const d = half(bytes, at);
    const high = uint32(bytes, at + 2);
    for (let i = 0; i < 16; i++) {
      const quants = bytes[at + 6 + i]!;
      out[to + i] = d * (((quants & 15) | (((high >>> i) & 1) << 4)) - 16);
      out[to + 16 + i] = d * (((quants >> 4) | (((high >>> (16 + i)) & 1) << 4)) - 16);
    }
  },

  // f16 d, m; u32 high; u8 quants[16]
  Q5_1(bytes, at, out, to) {
    const d = half(bytes, at);
    const m = half(bytes, at + 2);
    const high = uint32(bytes, at + 4);
    for (let i = 0; i < 16; i++) {
      const quants = bytes[at + 8 + i]!;
      out[to + i] = d * ((quants & 15) | (((high >>> i) & 1) << 4)) + m;
      out[to + 16 + i] = d * ((quants >> 4) | (((high >>> (16 + i)) & 1) << 4)) + m;
    }
  },

  // f16 d; i8 quants[32]
  Q8_0(bytes, at, out, to) {
    const d = half(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * int8(bytes, at + 2 + i);
  },

  // f16 d, dmin; u8 scales[12]; u8 quants[128]: per 64 weights, 32 low then 32 high nibbles
  Q4_K(bytes, at, out, to) {
    const d = half(bytes, at);
    const dmin = half(bytes, at + 2);
    for (let group = 0; group < 8; group++) {
      const scale = d * groupScale(bytes, at + 4, group);
      const min = dmin * groupMin(bytes, at + 4, group);
      const quants = at + 16 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let i = 0; i < 32; i++) {
        out[to + 32 * group + i] = scale * ((bytes[quants + i]! >> shift) & 15) - min;
      }
    }
  },

  // Q4_K with u8 high[32] before the quants: bit `group` of high[i] is bit 4 of its weight i
  Q5_K(bytes, at, out, to) {
    const d = half(bytes, at);
    const dmin = half(bytes, at + 2);
    for (let group = 0; group < 8; group++) {
      const scale = d * groupScale(bytes, at + 4, group);
      const min = dmin * groupMin(bytes, at + 4, group);
      const quants = at + 48 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let i = 0; i < 32; i++) {
        const low = (bytes[quants + i]! >> shift) & 15;
        const high = (bytes[at + 16 + i]! >> group) & 1;
        out[to + 32 * group + i] = scale * (low | (high << 4)) - min;
      }
    }
  },

  // u8 low[128]; u8 high[64]; i8 scales[16]; f16 d. Per 128 weights, four groups of 32: the low
  // nibbles of 64 bytes, then their high nibbles, and two bits each of 32 bytes of `high`.
  Q6_K(bytes, at, out, to) {
    const d = half(bytes, at + 208);
    for (let group = 0; group < 8; group++) {
      const quarter = group & 3;
      const lows = at + 64 * (group >> 2) + 32 * (quarter & 1);
      const highs = at + 128 + 32 * (group >> 2);
      for (let i = 0; i < 32; i++) {
        const low = (bytes[lows + i]! >> (4 * (quarter >> 1))) & 15;
        const high = (bytes[highs + i]! >> (2 * quarter)) & 3;
        const scale = int8(bytes, at + 192 + 2 * group + (i >> 4));
        out[to + 32 * group + i] = d * scale * ((low | (high << 4)) - 32);
      }
    }
  },
};

/** The 6-bit scale of a group of a K-quant, out of 12 bytes that pack 8 scales and 8 minima. */
function groupScale(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group]! & 63;
  return (bytes[at + group + 4]! & 15) | ((bytes[at + group - 4]! >> 6) << 4);
}

function groupMin(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group + 4]! & 63;
  return (bytes[at + group + 4]! >> 4) | ((bytes[at + group]! >> 6) << 4);
}

function half(bytes: Uint8Array, at: number): number {
  return halfToNumber(uint16(bytes, at));
}

function uint16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function uint32(bytes: Uint8Array, at: number): number {
  return (uint16(bytes, at) | (uint16(bytes, at + 2) << 16)) >>> 0;
}

function int8(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) >> 24;
}
