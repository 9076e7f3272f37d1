import { describe, expect, it } from "vitest";
import { dequantizeRows } from "../../../weights/dequantize.ts";
import { TENSOR_TYPES, type TensorType } from "../../../weights/tensorType.ts";
import { rowWords } from "../abi.ts";
import { EMBED } from "../linearAbi.ts";
import { embedKernelName } from "../matrixFormat.ts";
import { layOutMatrix, packRows } from "../packedMatrix.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import { randomTensor } from "../testing/randomTensor.ts";
import { defineEmbedKernels } from "./embed.ts";

const TOKENS = [0, 20, 7, 8, 3, 3, 13];
const COLUMNS = 512;

describe.each(Object.keys(TENSOR_TYPES) as TensorType[])("embedding rows of %s", (type) => {
  it("are the dequantised weights bit for bit, the sign of zeros aside", async () => {
    const tensor = randomTensor("embedding", type, 21, COLUMNS, 9);
    const matrix = layOutMatrix([tensor]);
    const kernel = embedKernelName(matrix.format);
    const harness = new KernelHarness(defineEmbedKernels().filter(({ name }) => name === kernel));
    const { arena, program } = harness;
    const weights = arena.reserve("weights", matrix.byteLength);
    const rowsTable = arena.reserve("rows", TOKENS.length * rowWords.BYTES);
    const outputStride = COLUMNS * 4 + 32;
    const output = arena.reserve("output", TOKENS.length * outputStride);
    const blocks = COLUMNS / 32;
    const params = program.params(EMBED, { weights, blocks, output, outputStride, rowsTable });
    program.add({ kernel, params, items: ({ rows }) => rows });
    await harness.bind();
    packRows(matrix, harness.bytes(weights, matrix.byteLength), tensor, 0, tensor.bytes);
    for (const [i, token] of TOKENS.entries()) {
      harness.int32(rowsTable + i * rowWords.BYTES)[rowWords.TOKEN] = token;
    }
    harness.run({ rows: TOKENS.length }, 2);
    const wanted = dequantizeRows(type, tensor.bytes, COLUMNS, tensor.rows);
    for (const [i, token] of TOKENS.entries()) {
      const found = harness.float32(output + i * outputStride, COLUMNS).map((x) => x + 0);
      const row = wanted.subarray(token * COLUMNS, (token + 1) * COLUMNS);
      expect(found).toEqual(row.map((x) => x + 0));
    }
  });
});
