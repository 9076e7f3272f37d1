/**
 * @file Linear layers: y[row, n] = sum_k W[n, k] x[row, k], W packed as matrixFormat.ts says.
 *
 * A panel function does a few rows of activations over a run of tiles. 32-bit lanes are
 * output rows, so nothing is added across lanes, and every weight that is loaded meets all rows of
 * the panel. Block by block, in order: the quants are multiplied with the activations of the block
 * and summed, exactly in integers (fast) or in f32 (exact); the sum times its scale is added to the
 * total; then the minimum times the sum of the activations. So a result's bits do not depend on
 * the panel it was computed in. Registers hold the totals of at most 8 (row, vector) pairs: 8 rows
 * go over a tile twice, a vector each time.
 */
import { PANEL_ROWS, TILE_ROWS } from "../abi.ts";
import type { Simd } from "../kernelModule.ts";
import { LINEAR } from "../linearAbi.ts";
import {
  ACTIVATION_BYTES,
  activationFormat,
  blockOffsets,
  HALF_SHIFT,
  linearKernelName,
  MATRIX_FORMATS,
  MATRIX_LAYOUTS,
  type MatrixFormat,
  type Precision,
  TILE_VECTORS,
  VECTOR_ROWS,
} from "../matrixFormat.ts";
import { blockAdder, repeat } from "./blockSums.ts";
import { defineEmbedKernels } from "./embed.ts";
import { define, type Wasm } from "./emit.ts";
import { f32x4, f32x4Const, i32, i32x4, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { defineQuantizeKernels } from "./quantize.ts";

/** Bytes of a tile in a row of outputs. */
const TILE_OUTPUT_BYTES = TILE_ROWS * 4;
const VECTOR_OUTPUT_BYTES = VECTOR_ROWS * 4;

/** What linear layers need: embedding rows, activations, products. */
export function defineLinearKernels(simd: Simd): readonly Wasm[] {
  return [...defineEmbedKernels(), ...defineQuantizeKernels(simd), ...defineProducts(simd)];
}

function defineProducts(simd: Simd): readonly Wasm[] {
  return MATRIX_FORMATS.flatMap((format) => {
    const exact = defineProduct(format, "exact", simd);
    const isQuantized = MATRIX_LAYOUTS[format].quantBits <= 8;
    return isQuantized ? [defineProduct(format, "fast", simd), exact] : [exact];
  });
}

/** Rows that panel functions take: fast ones have one a panel, the others are kept small. */
function panelSizes(precision: Precision): readonly number[] {
  return precision === "fast" ? PANEL_ROWS : [4, 1];
}

function defineProduct(format: MatrixFormat, precision: Precision, simd: Simd): Wasm {
  const sizes = panelSizes(precision);
  const panels = sizes.map((rows) => definePanel(format, precision, simd, rows));
  const { byteLength: blockBytes } = blockOffsets(format);
  const { values, tail } = ACTIVATION_BYTES[activationFormat(format, precision, simd)];
  return defineKernel(linearKernelName(format, precision), LINEAR, (k, { param, begin, end }) => {
    const blocks = k.let(param("blocks"));
    const stride = k.let(param("outputStride"));
    const add = k.let(param("add"));
    const numRows = k.let(i32.load(param("rows")));
    const tileBytes = k.let(i32.mul(blocks, blockBytes));
    const weights = k.let(i32.add(param("weights"), i32.mul(begin, tileBytes)));
    const output = k.let(i32.add(param("output"), i32.mul(begin, TILE_OUTPUT_BYTES)));
    const bias = k.let(param("bias"));
    k.if(bias, () => k.set(bias, i32.add(bias, i32.mul(begin, TILE_OUTPUT_BYTES))));
    const left = k.let(i32.sub(end, begin));
    // One call runs over all tiles; where it takes several, each tile stays in the cache for all.
    const tiles = k.let(i32.const(1));
    for (const size of sizes) k.if(i32.eq(numRows, size), () => k.set(tiles, left));
    const rowOutput = k.local("i32");
    const record = k.local("i32");
    const rowsLeft = k.local("i32");

    /** The `size` rows of a panel, as many at once as there is a function for. */
    const multiplyPanel = (size: number): void => {
      const panel = sizes.findIndex((rows) => rows <= size);
      const rows = sizes[panel]!;
      const activations = k.let(record);
      const tails = k.let(i32.add(record, size * values));
      repeat(k, size / rows, () => {
        const step = size * (values + tail);
        const at = [weights, blocks, activations, tails, step, rowOutput] as const;
        k.call(panels[panel]!, ...at, stride, bias, add, tiles);
        k.set(activations, i32.add(activations, rows * values));
        k.set(tails, i32.add(tails, rows * tail));
        k.set(rowOutput, i32.add(rowOutput, i32.mul(stride, rows)));
      });
      k.set(record, i32.add(record, i32.mul(blocks, size * (values + tail))));
      k.set(rowsLeft, i32.sub(rowsLeft, size));
    };

    k.while(
      () => left,
      () => {
        k.set(record, param("records"));
        k.set(rowOutput, output);
        k.set(rowsLeft, numRows);
        for (const size of PANEL_ROWS) {
          k.while(
            () => i32.ge_s(rowsLeft, size),
            () => multiplyPanel(size),
          );
        }
        k.set(left, i32.sub(left, tiles));
        k.set(weights, i32.add(weights, i32.mul(tiles, tileBytes)));
        k.set(output, i32.add(output, i32.mul(tiles, TILE_OUTPUT_BYTES)));
        k.if(bias, () => k.set(bias, i32.add(bias, i32.mul(tiles, TILE_OUTPUT_BYTES))));
      },
    );
  });
}

/**
 * `rows` rows, or a part of a panel that has more, over `tiles` > 0 tiles. From block to block,
 * values and tails lie `step` bytes apart.
 */
function definePanel(format: MatrixFormat, precision: Precision, simd: Simd, rows: number): Wasm {
  const vectors = Math.min(TILE_VECTORS, PANEL_ROWS[0] / rows);
  const { vectorBytes, scales: scalesAt, byteLength } = blockOffsets(format);
  const { scaleBytes } = MATRIX_LAYOUTS[format];
  const isShifted = precision === "fast" && scaleBytes === 2;
  return define(
    `panel_${format}_${precision}_${rows}`,
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    (k, weights, blocks, values, firstTails, step, output, stride, bias, add, tiles) => {
      const totals = Array.from({ length: rows }, () =>
        Array.from({ length: vectors }, () => k.local("v128")),
      );
      const quants = k.local("i32");
      const scales = k.local("i32");
      const activations = k.local("i32");
      const tails = k.local("i32");
      const blocksLeft = k.local("i32");
      const at = k.local("i32");
      const first = k.local("i32"); // of the tile's vectors
      const tileBytes = k.let(i32.mul(blocks, byteLength));
      const zero = k.let(f32x4Const(0));
      const factor = k.let(f32x4Const(HALF_SHIFT.TOTAL));
      const parts = totals[0]!.map(() => k.local("v128"));
      // What is not there is read all the same, from a valid address, and masked out.
      const oldMask = k.let(i32x4.splat(i32.sub(0, add)));
      const biasMask = k.let(i32x4.splat(i32.sub(0, i32.ne(bias, 0))));
      const addBlock = blockAdder({
        k,
        format,
        precision,
        simd,
        rows,
        vectors,
        quants,
        scales,
        activations,
        tails,
      });

      const multiply = (): void => {
        for (const total of totals.flat()) k.set(total, zero);
        k.set(quants, i32.add(weights, i32.mul(first, vectorBytes)));
        k.set(
          scales,
          i32.add(i32.add(weights, scalesAt), i32.mul(first, VECTOR_ROWS * scaleBytes)),
        );
        k.set(activations, values);
        k.set(tails, firstTails);
        k.set(blocksLeft, blocks);
        k.doWhile(
          () => {
            addBlock(totals);
            k.set(quants, i32.add(quants, byteLength));
            k.set(scales, i32.add(scales, byteLength));
            k.set(activations, i32.add(activations, step));
            k.set(tails, i32.add(tails, step));
            k.set(blocksLeft, i32.sub(blocksLeft, 1));
          },
          () => blocksLeft,
        );
      };

      const write = (): void => {
        for (const [vector, part] of parts.entries()) {
          k.set(part, v128.and(biasMask, v128.load(bias, vector * VECTOR_OUTPUT_BYTES)));
        }
        k.set(at, output);
        for (const ofRow of totals) {
          for (const [vector, total] of ofRow.entries()) {
            const offset = vector * VECTOR_OUTPUT_BYTES;
            const y = f32x4.add(isShifted ? f32x4.mul(total, factor) : total, parts[vector]!);
            v128.store(at, offset, f32x4.add(y, v128.and(oldMask, v128.load(at, offset))));
          }
          k.set(at, i32.add(at, stride));
        }
        k.set(output, i32.add(output, vectors * VECTOR_OUTPUT_BYTES));
        k.set(bias, i32.add(bias, vectors * VECTOR_OUTPUT_BYTES));
      };

      k.doWhile(
        () => {
          k.set(first, i32.const(0));
          k.doWhile(
            () => {
              multiply();
              write();
              k.set(first, i32.add(first, vectors));
            },
            () => i32.ne(first, TILE_VECTORS),
          );
          k.set(weights, i32.add(weights, tileBytes));
          k.set(tiles, i32.sub(tiles, 1));
        },
        () => tiles,
      );
      return undefined;
    },
  );
}
