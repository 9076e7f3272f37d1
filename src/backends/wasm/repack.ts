/** @file From ggml's blocks to the blocks of tiles that matrixFormat.ts describes. */
import { QuireError } from "../../errors.ts";
import { halfToNumber } from "../../weights/half.ts";
import { TENSOR_TYPES, type TensorType } from "../../weights/tensorType.ts";
import { TILE_ROWS } from "./abi.ts";
import { BLOCK_COLUMNS, blockOffsets, type MatrixFormat, VECTOR_ROWS } from "./matrixFormat.ts";

/** Packs the row at byte `from` of the file's bytes into row `row` of the tile at byte `to` of the target. */
type PackRow = (from: number, to: number, row: number, numBlocks: number) => void;

/** Binds a packer to the bytes that it reads, at a multiple of 4, and to those that it writes. */
type Packer = (file: Uint8Array, target: Uint8Array, tensorName: string) => PackRow;

/** Files, WebAssembly and every machine that runs it are little-endian. */
interface Views {
  readonly bytes: Uint8Array;
  readonly halves: Uint16Array;
  readonly words: Uint32Array;
  readonly floats: Float32Array;
}

/** Offsets in a target can pass 2^31: they are shifted with >>>. */
function viewsOf(bytes: Uint8Array): Views {
  const { buffer, byteOffset, byteLength } = bytes;
  return {
    bytes,
    halves: new Uint16Array(buffer, byteOffset, byteLength >> 1),
    words: new Uint32Array(buffer, byteOffset, byteLength >> 2),
    floats: new Float32Array(buffer, byteOffset, byteLength >> 2),
  };
}

/** The packer of every tensor type. */
export const PACKERS: Readonly<Record<TensorType, Packer>> = {
  Q4_0: packQ4_0,
  Q4_1: packQ4_1,
  Q4_K: packQ4K,
  Q5_0: packQ5_0,
  Q5_1: packQ5_1,
  Q5_K: packQ5K,
  Q6_K: packQ6K,
  Q8_0: packQ8_0,
  F16: packFloats((file, target) => [file.halves, target.halves]),
  BF16: packFloats((file, target) => [file.halves, target.halves]),
  F32: packFloats((file, target) => [file.words, target.words]),
};

/** Where the parts of a row lie in a tile's block, in units of each part's numbers. */
function placesOf(format: MatrixFormat, row: number) {
  const { vectorBytes, scales, minima } = blockOffsets(format);
  const lane = row % VECTOR_ROWS;
  const vectorAt = Math.floor(row / VECTOR_ROWS) * vectorBytes;
  return {
    /** First word of 4-bit quants; the others follow every VECTOR_ROWS words. */
    word: (vectorAt >> 2) + lane,
    /** First pair of 8-bit quants, in halves; the others follow every VECTOR_ROWS halves. */
    pair: (vectorAt >> 1) + lane,
    halfScale: (scales >> 1) + row,
    halfMinimum: (minima >> 1) + row,
    scale: (scales >> 2) + row,
    minimum: (minima >> 2) + row,
  };
}

/** From the pairs of four weights to those of the next four, in halves. */
const WORD_HALVES = 2 * VECTOR_ROWS;

// --- 4 bits ---

function packQ4_1(file: Uint8Array, target: Uint8Array): PackRow {
  const source = viewsOf(file);
  const out = viewsOf(target);
  const { blockBytes } = TENSOR_TYPES.Q4_1;
  const stride = blockOffsets("q4").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q4", row);
    for (let block = 0; block < numBlocks; block++) {
      const half = (from >> 1) + block * (blockBytes >> 1);
      const at = to + block * stride;
      out.halves[(at >>> 1) + place.halfScale] = source.halves[half]!;
      out.halves[(at >>> 1) + place.halfMinimum] = source.halves[half + 1]!;
      const word = (at >>> 2) + place.word;
      for (let v = 0; v < 4; v++) {
        out.words[word + v * VECTOR_ROWS] = source.words[(half >> 1) + 1 + v]!;
      }
    }
  };
}

function packQ4_0(file: Uint8Array, target: Uint8Array, tensorName: string): PackRow {
  const { halves } = viewsOf(file);
  const out = viewsOf(target);
  const { blockBytes } = TENSOR_TYPES.Q4_0;
  const stride = blockOffsets("q4").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q4", row);
    for (let block = 0; block < numBlocks; block++) {
      const half = (from >> 1) + block * (blockBytes >> 1);
      const at = to + block * stride;
      out.halves[(at >>> 1) + place.halfScale] = halves[half]!;
      out.halves[(at >>> 1) + place.halfMinimum] = minusEightTimes(halves[half]!, tensorName);
      const word = (at >>> 2) + place.word;
      for (let v = 0; v < 4; v++) {
        out.words[word + v * VECTOR_ROWS] =
          halves[half + 1 + 2 * v]! | (halves[half + 2 + 2 * v]! << 16);
      }
    }
  };
}

/** -8 times an f16, by its bits: exact, or an error. Doubling a subnormal is a shift of its bits. */
function minusEightTimes(half: number, tensorName: string): number {
  let magnitude = half & 0x7fff;
  for (let i = 0; i < 3; i++) magnitude += Math.min(magnitude, 0x400);
  if (magnitude >= 0x7c00) {
    throw new QuireError(
      "model-invalid",
      `The tensor ${tensorName} has a Q4_0 scale of ${halfToNumber(half)}; scales up to 8188 can be used. Use another file of the model.`,
      { tensor: tensorName },
    );
  }
  return magnitude | (~half & 0x8000);
}

/** Per 64 weights, 8 words: the low nibbles are the first 32, the high ones the others. */
function packQ4K(file: Uint8Array, target: Uint8Array): PackRow {
  const source = viewsOf(file);
  const out = viewsOf(target);
  const stride = blockOffsets("q4wide").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q4wide", row);
    for (let block = 0; block < numBlocks; block++) {
      const group = block & 7;
      const start = from + (block >> 3) * TENSOR_TYPES.Q4_K.blockBytes;
      const at = (to + block * stride) >>> 2;
      out.floats[at + place.scale] = groupScale(source, start, group);
      out.floats[at + place.minimum] = groupMinimum(source, start, group);
      const words = ((start + 16) >> 2) + 8 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let v = 0; v < 4; v++) {
        const low = (source.words[words + v]! >>> shift) & 0x0f0f0f0f;
        const high = (source.words[words + 4 + v]! >>> shift) & 0x0f0f0f0f;
        out.words[at + place.word + v * VECTOR_ROWS] = low | (high << 4);
      }
    }
  };
}

// Scale and minimum of group i of 8 in Q4_K and Q5_K, which start with f16 d and dmin and 12 bytes
// of 8 six-bit factors for each. The products are rounded to f32 once, as ggml does it.

function groupScale({ halves, bytes }: Views, start: number, i: number): number {
  const at = start + 4 + i;
  const factor = i < 4 ? bytes[at]! & 63 : (bytes[at + 4]! & 15) | ((bytes[at - 4]! >> 6) << 4);
  return halfToNumber(halves[start >> 1]!) * factor;
}

function groupMinimum({ halves, bytes }: Views, start: number, i: number): number {
  const at = start + 4 + i;
  const factor = i < 4 ? bytes[at + 4]! & 63 : (bytes[at + 4]! >> 4) | ((bytes[at]! >> 6) << 4);
  return -halfToNumber(halves[(start >> 1) + 1]!) * factor;
}

// --- 8 bits ---

// Weights are made four at a time, as the bytes of a word.

/** A word at any half. */
function wordAt(halves: Uint16Array, half: number): number {
  return halves[half]! | (halves[half + 1]! << 16);
}

/** Writes the weights 4a .. 4a + 3 as two pairs of a row, of which `pair` is the first. */
function putWord(halves: Uint16Array, pair: number, word: number): void {
  halves[pair] = (word & 0xff) | ((word >>> 8) & 0xff00);
  halves[pair + VECTOR_ROWS] = ((word >>> 8) & 0xff) | ((word >>> 16) & 0xff00);
}

/** Takes `zero` off each byte, all of which are below 128: the top bit keeps borrows apart. */
function lessZero(word: number, zero: number): number {
  return ((word | 0x80808080) - zero * 0x01010101) ^ 0x80808080;
}

/** The four lowest bits as bit 4 of four bytes. */
function spreadHighBits(bits: number): number {
  return (((bits & 15) * 0x00204081) & 0x01010101) << 4;
}

function packQ8_0(file: Uint8Array, target: Uint8Array): PackRow {
  const { halves } = viewsOf(file);
  const out = viewsOf(target);
  const { blockBytes } = TENSOR_TYPES.Q8_0;
  const stride = blockOffsets("q8").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q8", row);
    for (let block = 0; block < numBlocks; block++) {
      const half = (from + block * blockBytes) >> 1;
      const at = (to + block * stride) >>> 1;
      out.halves[at + place.halfScale] = halves[half]!;
      for (let a = 0; a < 8; a++) {
        putWord(out.halves, at + place.pair + a * WORD_HALVES, wordAt(halves, half + 1 + 2 * a));
      }
    }
  };
}

/** From 5 bits: a word of high bits, then 16 bytes of nibbles; the low ones are the first 16 weights. */
function packQ5_0(file: Uint8Array, target: Uint8Array): PackRow {
  const { halves } = viewsOf(file);
  const out = viewsOf(target);
  const { blockBytes } = TENSOR_TYPES.Q5_0;
  const stride = blockOffsets("q8").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q8", row);
    for (let block = 0; block < numBlocks; block++) {
      const half = (from + block * blockBytes) >> 1;
      const at = (to + block * stride) >>> 1;
      out.halves[at + place.halfScale] = halves[half]!;
      const high = wordAt(halves, half + 1);
      for (let a = 0; a < 8; a++) {
        const nibbles = wordAt(halves, half + 3 + 2 * (a & 3)) >>> (a & 4);
        const word = (nibbles & 0x0f0f0f0f) | spreadHighBits(high >>> (4 * a));
        putWord(out.halves, at + place.pair + a * WORD_HALVES, lessZero(word, 16));
      }
    }
  };
}

function packQ5_1(file: Uint8Array, target: Uint8Array): PackRow {
  const { halves, words } = viewsOf(file);
  const out = viewsOf(target);
  const { blockBytes } = TENSOR_TYPES.Q5_1;
  const stride = blockOffsets("q8wide").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q8wide", row);
    for (let block = 0; block < numBlocks; block++) {
      const source = (from + block * blockBytes) >> 2;
      const at = (to + block * stride) >>> 2;
      const scale = halfToNumber(halves[2 * source]!);
      out.floats[at + place.scale] = scale;
      out.floats[at + place.scale + TILE_ROWS] = scale;
      out.floats[at + place.minimum] = halfToNumber(halves[2 * source + 1]!);
      const high = words[source + 1]!;
      for (let a = 0; a < 8; a++) {
        const nibbles = words[source + 2 + (a & 3)]! >>> (a & 4);
        const word = (nibbles & 0x0f0f0f0f) | spreadHighBits(high >>> (4 * a));
        putWord(out.halves, 2 * at + place.pair + a * WORD_HALVES, word);
      }
    }
  };
}

/** As Q4_K, with 32 bytes of high bits before the nibbles: bit `group` of byte i is of its weight i. */
function packQ5K(file: Uint8Array, target: Uint8Array): PackRow {
  const source = viewsOf(file);
  const out = viewsOf(target);
  const stride = blockOffsets("q8wide").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q8wide", row);
    for (let block = 0; block < numBlocks; block++) {
      const group = block & 7;
      const start = from + (block >> 3) * TENSOR_TYPES.Q5_K.blockBytes;
      const at = (to + block * stride) >>> 2;
      const scale = groupScale(source, start, group);
      out.floats[at + place.scale] = scale;
      out.floats[at + place.scale + TILE_ROWS] = scale;
      out.floats[at + place.minimum] = groupMinimum(source, start, group);
      const highs = (start + 16) >> 2;
      const nibbles = (start + 48 + 32 * (group >> 1)) >> 2;
      for (let a = 0; a < 8; a++) {
        const low = (source.words[nibbles + a]! >>> (4 * (group & 1))) & 0x0f0f0f0f;
        const high = (source.words[highs + a]! >>> group) & 0x01010101;
        putWord(out.halves, 2 * at + place.pair + a * WORD_HALVES, low | (high << 4));
      }
    }
  };
}

/**
 * u8 low[128]; u8 high[64]; i8 scales[16]; f16 d. Each half of 128 weights has 64 bytes of `low`,
 * first their low nibbles and then their high ones, and 32 of `high`, two bits for each quarter.
 */
function packQ6K(file: Uint8Array, target: Uint8Array): PackRow {
  const { halves } = viewsOf(file);
  const signed = new Int8Array(file.buffer, file.byteOffset, file.byteLength);
  const out = viewsOf(target);
  const stride = blockOffsets("q8wide").byteLength;
  return (from, to, row, numBlocks) => {
    const place = placesOf("q8wide", row);
    for (let block = 0; block < numBlocks; block++) {
      const group = block & 7;
      const quarter = group & 3;
      const start = from + (block >> 3) * TENSOR_TYPES.Q6_K.blockBytes;
      const at = (to + block * stride) >>> 2;
      const d = halfToNumber(halves[(start + 208) >> 1]!);
      const scales = start + 192 + 2 * group;
      out.floats[at + place.scale] = d * signed[scales]!;
      out.floats[at + place.scale + TILE_ROWS] = d * signed[scales + 1]!;
      const lows = (start + 64 * (group >> 2) + 32 * (quarter & 1)) >> 1;
      const highs = (start + 128 + 32 * (group >> 2)) >> 1;
      for (let a = 0; a < 8; a++) {
        const low = (wordAt(halves, lows + 2 * a) >>> (4 * (quarter >> 1))) & 0x0f0f0f0f;
        const high = (wordAt(halves, highs + 2 * a) >>> (2 * quarter)) & 0x03030303;
        putWord(out.halves, 2 * at + place.pair + a * WORD_HALVES, lessZero(low | (high << 4), 32));
      }
    }
  };
}

// --- Floats ---

/** As they are, from [row][k] to [k][row of the tile]. */
function packFloats(
  numbersOf: (
    file: Views,
    target: Views,
  ) => readonly [Uint16Array, Uint16Array] | readonly [Uint32Array, Uint32Array],
): Packer {
  return (file, target) => {
    const [source, out] = numbersOf(viewsOf(file), viewsOf(target));
    const { BYTES_PER_ELEMENT } = source;
    return (from, to, row, numBlocks) => {
      const start = from / BYTES_PER_ELEMENT;
      const place = to / BYTES_PER_ELEMENT + row;
      const columns = numBlocks * BLOCK_COLUMNS;
      for (let k = 0; k < columns; k++) out[place + k * TILE_ROWS] = source[start + k]!;
    };
  };
}
