import { describe, expect, it } from "vitest";
import { QuireError } from "../../errors.ts";
import { TENSOR_TYPES, type TensorInfo, type TensorType } from "../../weights/tensorType.ts";
import { blockOffsets } from "./matrixFormat.ts";
import { isUniform, layOutMatrix, packRows } from "./packedMatrix.ts";
import { randomTensor } from "./testing/randomTensor.ts";

function tensor(name: string, type: TensorType, rows: number, columns: number): TensorInfo {
  return randomTensor(name, type, rows, columns, 1);
}

/** The error that a call throws. */
function errorOf(call: () => unknown): QuireError {
  try {
    call();
  } catch (error) {
    if (error instanceof QuireError) return error;
    throw error;
  }
  throw new Error("The call threw nothing.");
}

describe("layOutMatrix", () => {
  it("stacks tensors and pads the last tile", () => {
    const stacked = [5, 8, 4].map((rows, i) => tensor(`t${i}`, "Q4_1", rows, 64));
    const matrix = layOutMatrix(stacked);
    expect(matrix).toMatchObject({ format: "q4", rows: 17, paddedRows: 24, tiles: 3, columns: 64 });
    expect([...matrix.placements]).toEqual([
      ["t0", 0],
      ["t1", 5],
      ["t2", 13],
    ]);
    expect(matrix.byteLength).toBe(24 * 64 * (5 / 8));
  });

  it("takes as many bits a weight as the formats say", () => {
    const bits = Object.keys(TENSOR_TYPES).map((type) => {
      const { byteLength } = layOutMatrix([tensor("w", type as TensorType, 8, 256)]);
      return [type, (byteLength * 8) / (8 * 256)];
    });
    expect(Object.fromEntries(bits)).toEqual({
      F32: 32,
      F16: 16,
      BF16: 16,
      Q4_0: 5,
      Q4_1: 5,
      Q4_K: 6,
      Q5_0: 8.5,
      Q8_0: 8.5,
      Q5_1: 11,
      Q5_K: 11,
      Q6_K: 11,
    });
  });

  it("refuses rows that are not whole blocks, by name", () => {
    const error = errorOf(() => layOutMatrix([tensor("odd", "F16", 8, 40)]));
    expect(error.code).toBe("model-unsupported");
    expect(error.message).toContain("odd");
  });

  it("wants one type and one width", () => {
    const q = tensor("q", "Q4_1", 8, 64);
    expect(isUniform([q, tensor("k", "Q4_1", 3, 64)])).toBe(true);
    expect(isUniform([q, tensor("k", "Q4_0", 8, 64)])).toBe(false);
    expect(isUniform([q, tensor("k", "Q4_1", 8, 32)])).toBe(false);
    expect(errorOf(() => layOutMatrix([q, tensor("k", "Q4_0", 8, 64)])).code).toBe("internal");
  });
});

describe("packRows", () => {
  it("leaves the padding zero", () => {
    const given = randomTensor("w", "F32", 9, 32, 4);
    const matrix = layOutMatrix([given]);
    const target = new Uint8Array(matrix.byteLength);
    packRows(matrix, target, given, 0, given.bytes);
    const floats = new Float32Array(target.buffer, matrix.byteLength / 2); // the second tile
    expect(floats.every((x, i) => (i % 8 === 0 ? x !== 0 : x === 0))).toBe(true);
  });

  it.each(Object.keys(TENSOR_TYPES) as TensorType[])(
    "packs %s the same into shared memory, from any offset, in any pieces",
    (type) => {
      const given = randomTensor("w", type, 11, 256, 3);
      const matrix = layOutMatrix([given]);
      const whole = new Uint8Array(matrix.byteLength);
      packRows(matrix, whole, given, 0, given.bytes);

      const shared = new Uint8Array(new SharedArrayBuffer(matrix.byteLength + 64), 64);
      const shifted = new Uint8Array(given.bytes.length + 1);
      shifted.set(given.bytes, 1);
      const rowBytes = given.bytes.length / 11;
      for (const [first, past] of [
        [6, 11],
        [0, 1],
        [1, 6],
      ] as const) {
        const piece = shifted.subarray(1 + first * rowBytes, 1 + past * rowBytes);
        packRows(matrix, shared, given, first, piece);
      }
      expect(Buffer.compare(Buffer.from(shared), Buffer.from(whole))).toBe(0);
    },
  );

  it("makes minima of -8 d for Q4_0, also of subnormal d", () => {
    const given = randomTensor("w", "Q4_0", 8, 32, 3);
    const scales = [0x0000, 0x8000, 0x0001, 0x8080, 0x03ff, 0x0400, 0x3c00, 0x6fff];
    const view = new DataView(given.bytes.buffer);
    for (const [row, scale] of scales.entries()) view.setUint16(row * 18, scale, true);
    const matrix = layOutMatrix([given]);
    const target = new Uint8Array(matrix.byteLength);
    packRows(matrix, target, given, 0, given.bytes);
    const minima = new Uint16Array(target.buffer, blockOffsets("q4").minima, 8);
    expect([...minima]).toEqual([0x8000, 0x0000, 0x8008, 0x0400, 0x8ffe, 0x9000, 0xc800, 0xfbff]);
  });

  it("refuses a Q4_0 scale whose minimum does not fit, by the tensor's name", () => {
    const given = randomTensor("blk.0.attn_q.weight", "Q4_0", 8, 32, 3);
    new DataView(given.bytes.buffer).setUint16(18, 0xf000, true); // -8192
    const matrix = layOutMatrix([given]);
    const target = new Uint8Array(matrix.byteLength);
    const error = errorOf(() => packRows(matrix, target, given, 0, given.bytes));
    expect(error.code).toBe("model-invalid");
    expect(error.message).toContain("blk.0.attn_q.weight");
    expect(error.message).toContain("-8192");
  });
});
