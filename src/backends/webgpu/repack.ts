import { halfToNumber } from "../../weights/half.ts";
import { rowByteLength, type TensorInfo, type TensorType } from "../../weights/tensorType.ts";

/** Planes of packed blocks, `quantWords` and `metaWords` (see WeightFormat) 32-bit words a block. */
export interface PackedPlanes {
  readonly quants: Uint32Array<ArrayBuffer>;
  readonly meta: Uint32Array<ArrayBuffer>;
}

/** Views of the file's bytes; all files are little-endian, and so is every machine with WebGPU. */
interface FileViews {
  readonly bytes: Uint8Array;
  readonly halves: Uint16Array;
  /** Whole words only: formats whose blocks are multiples of 4 bytes use it. */
  readonly words: Uint32Array;
}

/** Packs the 32-weight blocks of one file block, which starts at `byteOffset`, into blocks `index(i)`. */
type PackBlock = (
  file: FileViews,
  byteOffset: number,
  out: PackedPlanes,
  firstBlock: number,
  blockStride: number,
) => void;

/**
 * Packs rows [firstRow, firstRow + numRows) of `bytes`, rows of a tensor in the file's layout.
 * Block kb of the i-th of them goes to index `firstIndex + i + kb * stride` of the planes.
 */
export function repackRows(
  tensor: Pick<TensorInfo, "type" | "columns">,
  bytes: Uint8Array<ArrayBuffer>,
  firstRow: number,
  numRows: number,
  out: PackedPlanes,
  firstIndex: number,
  stride: number,
): void {
  const rowBytes = rowByteLength(tensor);
  const { fileBlockBytes, blocksPerFileBlock, pack } = PACKERS[tensor.type];
  const fileBlocks = rowBytes / fileBlockBytes;
  const file = viewsOf(bytes);
  for (let row = 0; row < numRows; row++) {
    let byteOffset = (firstRow + row) * rowBytes;
    let index = firstIndex + row;
    for (let i = 0; i < fileBlocks; i++) {
      pack(file, byteOffset, out, index, stride);
      byteOffset += fileBlockBytes;
      index += blocksPerFileBlock * stride;
    }
  }
}

function viewsOf(bytes: Uint8Array<ArrayBuffer>): FileViews {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset, byteLength } = aligned;
  return {
    bytes: aligned,
    halves: new Uint16Array(buffer, byteOffset, byteLength >> 1),
    words: new Uint32Array(buffer, byteOffset, byteLength >> 2),
  };
}

interface Packer {
  readonly fileBlockBytes: number;
  readonly blocksPerFileBlock: number;
  readonly pack: PackBlock;
}

const PACKERS: Readonly<Record<TensorType, Packer>> = {
  Q4_0: { fileBlockBytes: 18, blocksPerFileBlock: 1, pack: packHalves(0, 1) },
  Q4_1: { fileBlockBytes: 20, blocksPerFileBlock: 1, pack: packWords(1, 4) },
  Q5_0: { fileBlockBytes: 22, blocksPerFileBlock: 1, pack: packHalves(1, 2) },
  Q5_1: { fileBlockBytes: 24, blocksPerFileBlock: 1, pack: packWords(2, 4) },
  Q8_0: { fileBlockBytes: 34, blocksPerFileBlock: 1, pack: packQ8 },
  Q4_K: { fileBlockBytes: 144, blocksPerFileBlock: 8, pack: packQ4K },
  Q5_K: { fileBlockBytes: 176, blocksPerFileBlock: 8, pack: packQ5K },
  Q6_K: { fileBlockBytes: 210, blocksPerFileBlock: 8, pack: packQ6K },
  F16: { fileBlockBytes: 64, blocksPerFileBlock: 1, pack: packWords(0, 16) },
  BF16: { fileBlockBytes: 64, blocksPerFileBlock: 1, pack: packWords(0, 16) },
  F32: { fileBlockBytes: 128, blocksPerFileBlock: 1, pack: packWords(0, 32) },
};

/** Blocks of whole words: `metaWords` of them, then the quants, both as they are. */
function packWords(metaWords: number, quantWords: number): PackBlock {
  return ({ words }, byteOffset, out, block) => {
    let at = byteOffset >> 2;
    for (let i = 0; i < metaWords; i++) out.meta[block * metaWords + i] = words[at++]!;
    for (let i = 0; i < quantWords; i++) out.quants[block * quantWords + i] = words[at++]!;
  };
}

/** Q4_0 and Q5_0: an f16 scale, `highWords` words of high bits, 16 bytes of nibbles; 2-byte aligned. */
function packHalves(highWords: number, metaWords: number): PackBlock {
  return ({ halves }, byteOffset, out, block) => {
    let at = byteOffset >> 1;
    out.meta[block * metaWords] = halves[at++]!;
    for (let i = 0; i < highWords; i++, at += 2) {
      out.meta[block * metaWords + 1 + i] = halves[at]! | (halves[at + 1]! << 16);
    }
    for (let i = 0; i < 4; i++, at += 2) {
      out.quants[block * 4 + i] = halves[at]! | (halves[at + 1]! << 16);
    }
  };
}

function packQ8({ halves }: FileViews, byteOffset: number, out: PackedPlanes, block: number): void {
  let at = byteOffset >> 1;
  out.meta[block] = halves[at++]!;
  for (let i = 0; i < 8; i++, at += 2) {
    out.quants[block * 8 + i] = halves[at]! | (halves[at + 1]! << 16);
  }
}

// Reinterprets the f32 product that ggml computes as the word that the planes hold.
const floatBits = new Float32Array(1);
const floatWord = new Uint32Array(floatBits.buffer);

function wordOf(value: number): number {
  floatBits[0] = value;
  return floatWord[0]!;
}

/** 6-bit scale or minimum `i` of 8 (`minimum` = 0 or 1) in the 12 packed bytes of Q4_K and Q5_K. */
function sixBits(bytes: Uint8Array, at: number, i: number, minimum: 0 | 1): number {
  if (i < 4) return bytes[at + i + 4 * minimum]! & 63;
  const low = bytes[at + i + 4]!;
  const high = bytes[at + i - 4 + 4 * minimum]! >> 6;
  return (minimum ? low >> 4 : low & 15) | (high << 4);
}

/** Nibbles of a K-quant's 32 bytes (8 words from `at`), upper or lower, as the 4 words of a block. */
function packNibbles(words: Uint32Array, at: number, upper: boolean, out: Uint32Array, to: number) {
  for (let i = 0; i < 4; i++) {
    const first = words[at + i]!;
    const second = words[at + 4 + i]!;
    out[to + i] = upper
      ? ((first >>> 4) & 0x0f0f0f0f) | (second & 0xf0f0f0f0)
      : (first & 0x0f0f0f0f) | ((second & 0x0f0f0f0f) << 4);
  }
}

function packQ4K(
  file: FileViews,
  byteOffset: number,
  out: PackedPlanes,
  firstBlock: number,
  stride: number,
): void {
  const scale = halfToNumber(file.halves[byteOffset >> 1]!);
  const minimum = halfToNumber(file.halves[(byteOffset >> 1) + 1]!);
  for (let i = 0; i < 8; i++) {
    const block = firstBlock + i * stride;
    out.meta[block * 2] = wordOf(scale * sixBits(file.bytes, byteOffset + 4, i, 0));
    out.meta[block * 2 + 1] = wordOf(-minimum * sixBits(file.bytes, byteOffset + 4, i, 1));
    const at = ((byteOffset + 16) >> 2) + (i >> 1) * 8;
    packNibbles(file.words, at, (i & 1) === 1, out.quants, block * 4);
  }
}

function packQ5K(
  file: FileViews,
  byteOffset: number,
  out: PackedPlanes,
  firstBlock: number,
  stride: number,
): void {
  const scale = halfToNumber(file.halves[byteOffset >> 1]!);
  const minimum = halfToNumber(file.halves[(byteOffset >> 1) + 1]!);
  for (let i = 0; i < 8; i++) {
    const block = firstBlock + i * stride;
    out.meta[block * 3] = wordOf(scale * sixBits(file.bytes, byteOffset + 4, i, 0));
    out.meta[block * 3 + 1] = wordOf(-minimum * sixBits(file.bytes, byteOffset + 4, i, 1));
    let high = 0;
    for (let l = 0; l < 32; l++) high |= ((file.bytes[byteOffset + 16 + l]! >> i) & 1) << l;
    out.meta[block * 3 + 2] = high;
    const at = ((byteOffset + 48) >> 2) + (i >> 1) * 8;
    packNibbles(file.words, at, (i & 1) === 1, out.quants, block * 4);
  }
}

/** Q6_K: two halves of 128; in each, four blocks of 32 share 64 bytes of nibbles and 32 of bit pairs. */
function packQ6K(
  { bytes, halves }: FileViews,
  byteOffset: number,
  out: PackedPlanes,
  firstBlock: number,
  stride: number,
): void {
  const scale = halfToNumber(halves[(byteOffset + 208) >> 1]!);
  for (let i = 0; i < 8; i++) {
    const block = firstBlock + i * stride;
    const half = i >> 2;
    const part = i & 3;
    const nibblesAt = byteOffset + half * 64 + (part & 1) * 32;
    const pairsAt = byteOffset + 128 + half * 32;
    const scalesAt = byteOffset + 192 + half * 8 + part * 2;
    for (let j = 0; j < 2; j++) {
      out.meta[block * 4 + j] = wordOf(scale * ((bytes[scalesAt + j]! << 24) >> 24));
      let pairs = 0;
      for (let l = 0; l < 16; l++) {
        pairs |= ((bytes[pairsAt + j * 16 + l]! >> (part * 2)) & 3) << (l * 2);
      }
      out.meta[block * 4 + 2 + j] = pairs;
    }
    const shift = (part >> 1) * 4;
    for (let w = 0; w < 4; w++) {
      let word = 0;
      for (let b = 0; b < 4; b++) {
        const first = (bytes[nibblesAt + w * 4 + b]! >> shift) & 15;
        const second = (bytes[nibblesAt + 16 + w * 4 + b]! >> shift) & 15;
        word |= (first | (second << 4)) << (b * 8);
      }
      out.quants[block * 4 + w] = word;
    }
  }
}
