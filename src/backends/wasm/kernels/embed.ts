/** @file Rows of the embedding matrix as f32, rounded once, as dequantizeRows does it. */
import { rowWords, TILE_ROWS } from "../abi.ts";
import { EMBED } from "../linearAbi.ts";
import {
  BLOCK_COLUMNS,
  blockOffsets,
  embedKernelName,
  HALF_SHIFT,
  MATRIX_FORMATS,
  MATRIX_LAYOUTS,
  type MatrixFormat,
  PAIR_ORDER,
  VECTOR_ROWS,
} from "../matrixFormat.ts";
import { repeat } from "./blockSums.ts";
import type { FunctionBody, Wasm } from "./emit.ts";
import { f32, f32x4, i8x16, i16x8, i32, i32x4, i32x4Const, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import type { Int, Value, Variable, Vector } from "./value.ts";

export function defineEmbedKernels(): readonly Wasm[] {
  return MATRIX_FORMATS.map(defineEmbed);
}

function defineEmbed(format: MatrixFormat): Wasm {
  const { byteLength } = blockOffsets(format);
  return defineKernel(embedKernelName(format), EMBED, (k, { param, begin, end }) => {
    const blocks = k.let(param("blocks"));
    const output = k.local("i32");
    k.for(begin, end, 1, (row) => {
      const record = i32.add(param("rowsTable"), i32.mul(row, rowWords.BYTES));
      const token = k.let(i32.load(record, rowWords.TOKEN * 4));
      const tile = i32.div_u(token, TILE_ROWS);
      const block = k.let(i32.add(param("weights"), i32.mul(tile, i32.mul(blocks, byteLength))));
      const rowInTile = k.let(i32.rem_u(token, TILE_ROWS));
      k.set(output, i32.add(param("output"), i32.mul(row, param("outputStride"))));
      k.for(0, blocks, 1, () => {
        decodeBlock(k, format, block, rowInTile, output);
        k.set(block, i32.add(block, byteLength));
        k.set(output, i32.add(output, BLOCK_COLUMNS * 4));
      });
    });
  });
}

/** 32 weights of one row. */
function decodeBlock(
  k: FunctionBody,
  format: MatrixFormat,
  block: Variable<"i32">,
  rowInTile: Variable<"i32">,
  output: Variable<"i32">,
): void {
  const { quantBits } = MATRIX_LAYOUTS[format];
  if (quantBits > 8) {
    const at = k.let(i32.add(block, i32.mul(rowInTile, quantBits / 8)));
    const to = k.let(output);
    repeat(k, BLOCK_COLUMNS, () => {
      f32.store(to, 0, loadFloat(format, at, 0));
      k.set(at, i32.add(at, (TILE_ROWS * quantBits) / 8));
      k.set(to, i32.add(to, 4));
    });
    return;
  }
  const { scaleBytes, scales: numScales, hasMinimum } = MATRIX_LAYOUTS[format];
  const { vectorBytes, scales, minima } = blockOffsets(format);
  const scaleAt = k.let(i32.add(block, i32.mul(rowInTile, scaleBytes)));
  const load = (offset: number): Value<"v128"> =>
    f32x4.splat(loadFloat(scaleBytes === 2 ? "f16" : "f32", scaleAt, offset));
  const factor = k.local("v128");
  const minimum = hasMinimum ? k.let(load(minima)) : undefined;
  const to = k.let(output);
  const write = (offset: number, quants: Vector): void => {
    const scaled = f32x4.mul(f32x4.convert_i32x4_s(quants), factor);
    v128.store(to, offset, minimum ? f32x4.add(minimum, scaled) : scaled);
  };

  const vectorAt = i32.mul(i32.div_u(rowInTile, VECTOR_ROWS), vectorBytes);
  const laneAt = i32.mul(i32.rem_u(rowInTile, VECTOR_ROWS), quantBits === 4 ? 4 : 2);
  const at = k.let(i32.add(i32.add(block, vectorAt), laneAt));
  if (quantBits === 4) {
    k.set(factor, load(scales));
    const word = k.local("v128");
    repeat(k, 4, () => {
      k.set(word, v128.load32_zero(at));
      write(0, fourBytes(v128.and(word, i32x4Const(0x0f0f0f0f)), false));
      write(64, fourBytes(v128.and(i32x4.shr_u(word, 4), i32x4Const(0x0f0f0f0f)), false));
      k.set(at, i32.add(at, 16));
      k.set(to, i32.add(to, 16));
    });
    return;
  }
  for (let part = 0; part < numScales; part++) {
    k.set(factor, load(scales + part * TILE_ROWS * scaleBytes));
    repeat(k, BLOCK_COLUMNS / 4 / numScales, () => {
      // Two pairs: the weights 0 and 2, 1 and 3.
      const pairs = i32.or(i32.load16_u(at), i32.shl(i32.load16_u(at, 8), 16));
      const bytes = k.let(i32x4.splat(pairs));
      const order = PAIR_ORDER;
      const all = [...order, ...order, ...order, ...order];
      write(0, fourBytes(i8x16.shuffle(bytes, bytes, all), true));
      k.set(at, i32.add(at, 16));
      k.set(to, i32.add(to, 16));
    });
  }
}

/** The four lowest bytes as i32. */
function fourBytes(bytes: Vector, signed: boolean): Vector {
  return i32x4.extend_low_i16x8_s(
    signed ? i16x8.extend_low_i8x16_s(bytes) : i16x8.extend_low_i8x16_u(bytes),
  );
}

/** A number of a float format as f32. */
function loadFloat(format: MatrixFormat, address: Int, offset: number): Value<"f32"> {
  if (format === "f32") return f32.load(address, offset);
  if (format === "bf16") return f32.reinterpret_i32(i32.shl(i32.load16_u(address, offset), 16));
  const bits = i32.and(i32.shl(i32.load16_s(address, offset), 13), 0x8fffe000 | 0);
  return f32.mul(f32.reinterpret_i32(bits), f32.const(1 / HALF_SHIFT.SCALE));
}
