import fixture from "../../../weights/fixtures/quants.json" with { type: "json" };
import {
  rowByteLength,
  TENSOR_TYPES,
  type TensorInfo,
  type TensorType,
} from "../../../weights/tensorType.ts";

/** Numbers in [0, 1) from a seed: a linear congruence, its upper bits. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
}

/** A tensor with its bytes as a file would have them. */
export interface RandomTensor extends TensorInfo {
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Random quants under scales of about 2^-7, some of them negative, zero or subnormal in f16, and
 * random floats below 1.
 */
export function randomTensor(
  name: string,
  type: TensorType,
  rows: number,
  columns: number,
  seed: number,
): RandomTensor {
  const random = randomNumbers(seed);
  const byteLength = rows * rowByteLength({ type, columns });
  const bytes = new Uint8Array(byteLength);
  const view = new DataView(bytes.buffer);
  const info = { name, type, rows, columns, byteOffset: 0, byteLength, bytes };
  if (type === "F32" || type === "BF16") {
    const size = type === "F32" ? 4 : 2;
    const word = new DataView(new ArrayBuffer(4));
    for (let i = 0; i < byteLength; i += size) {
      word.setFloat32(0, random() * 2 - 1);
      if (type === "F32") view.setUint32(i, word.getUint32(0), true);
      else view.setUint16(i, word.getUint16(0), true);
    }
    return info;
  }
  for (let i = 0; i < byteLength; i++) bytes[i] = random() * 256;
  const { halves } = fixture.types[type];
  for (let at = 0; at < byteLength; at += TENSOR_TYPES[type].blockBytes) {
    for (const [i, half] of halves.entries())
      view.setUint16(at + half, randomHalf(random, i), true);
  }
  return info;
}

/** An f16 of about 2^-7 for scales (index 0), of about 2^-5 for minima. */
function randomHalf(random: () => number, index: number): number {
  const fraction = Math.floor(random() * 1024);
  const sign = random() < 0.5 ? 0x8000 : 0;
  const kind = random();
  if (kind < 0.02) return sign;
  if (kind < 0.04) return sign | fraction;
  return sign | ((8 + 2 * index) << 10) | fraction;
}
