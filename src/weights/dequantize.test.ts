import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { dequantizeRows } from "./dequantize.ts";
import fixture from "./fixtures/quants.json" with { type: "json" };
import { halfToNumber } from "./half.ts";
import { TENSOR_TYPES, type TensorType } from "./tensorType.ts";

// The fixture is what ggml's own code makes of these blocks (e2e/oracle/quants.mjs).
describe.each(Object.entries(fixture.types))("%s", (name, { halves, bytes, weights, sha256 }) => {
  const type = name as TensorType;
  const { blockSize, blockBytes } = TENSOR_TYPES[type];

  it("equals ggml's weights bit for bit", () => {
    const blocks = Buffer.from(bytes, "base64");
    const numWeights = (blocks.length / blockBytes) * blockSize;
    const found = dequantizeRows(type, blocks, numWeights / 2, 2);
    expect(bitsOf(found)).toEqual(bitsOf(Buffer.from(weights, "base64")));
  });

  it(`equals ggml's weights on ${fixture.numBlocks} blocks of random bits`, () => {
    const blocks = randomBlocks(fixture.seed, fixture.numBlocks, blockBytes, halves);
    const found = dequantizeRows(type, blocks, fixture.numBlocks * blockSize, 1);
    const digest = createHash("sha256").update(new Uint8Array(found.buffer)).digest("hex");
    expect(digest).toBe(sha256);
  });

  it("reads rows that start anywhere in a buffer", () => {
    const blocks = Buffer.from(bytes, "base64");
    const shifted = new Uint8Array(blocks.length + 3);
    shifted.set(blocks, 3);
    const columns = (blocks.length / blockBytes) * blockSize;
    const found = dequantizeRows(type, shifted.subarray(3), columns, 1);
    expect(bitsOf(found)).toEqual(bitsOf(dequantizeRows(type, blocks, columns, 1)));
  });
});

it("has a fixture for every tensor type but F32", () => {
  expect([...Object.keys(fixture.types), "F32"].sort()).toEqual(Object.keys(TENSOR_TYPES).sort());
});

it("copies F32 as it is, NaN and signed zero included", () => {
  const bits = new Uint32Array([0, 0x80000000, 0x7fc01234, 0x00000001, 0x3f800000, 0xff800000]);
  const found = dequantizeRows("F32", new Uint8Array(bits.buffer), 3, 2);
  expect(bitsOf(found)).toEqual([...bits]);
  expect(found.buffer).not.toBe(bits.buffer);
});

it("keeps the payload of a BF16 NaN", () => {
  const found = dequantizeRows("BF16", new Uint8Array([0x81, 0xff, 0x01, 0x00]), 2, 1);
  expect(bitsOf(found)).toEqual([0xff810000, 0x00010000]);
});

it("knows infinities and NaN of f16", () => {
  expect(halfToNumber(0x7c00)).toBe(Number.POSITIVE_INFINITY);
  expect(halfToNumber(0xfc00)).toBe(Number.NEGATIVE_INFINITY);
  expect(halfToNumber(0x7e00)).toBeNaN();
  expect(halfToNumber(0x0001)).toBe(2 ** -24);
  expect(halfToNumber(0x8000)).toBe(-0);
});

it("refuses bytes that are not whole rows", () => {
  expect(() => dequantizeRows("Q4_0", new Uint8Array(17), 32, 1)).toThrow("17 bytes");
  expect(() => dequantizeRows("Q4_0", new Uint8Array(9), 16, 1)).toThrow("rows of 16");
});

function bitsOf(array: Float32Array | Buffer): number[] {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength).slice();
  return [...new Uint32Array(bytes.buffer)];
}

/** The same bytes as randomBlocks in e2e/oracle/quants.mjs. */
function randomBlocks(
  seed: number,
  numBlocks: number,
  blockBytes: number,
  halves: readonly number[],
): Uint8Array {
  const bytes = new Uint8Array(numBlocks * blockBytes);
  let state = seed;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const half of halves) {
      const high = at + half + 1;
      if ((bytes[high]! & 0x7c) === 0x7c) bytes[high]! &= 0x83;
    }
  }
  return bytes;
}
