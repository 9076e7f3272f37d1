import { expect, it } from "vitest";
import { Arena } from "./arena.ts";
import { layOutKvPool } from "./kvPool.ts";

const SPEC = {
  numLayers: 3,
  numBlocks: 10,
  numKvHeads: 2,
  headDim: 64,
  blockSize: 16,
  kvCacheDtype: "f16",
} as const;

it("reserves K and V of all blocks, layer by layer", () => {
  const arena = new Arena();
  const { layers, blockBytes, byteLength } = layOutKvPool(SPEC, arena);
  expect(blockBytes).toBe(2 * 2 * 16 * 64 * 2);
  expect(byteLength).toBe(3 * 10 * blockBytes);
  expect(layers.map((address) => address - layers[0]!)).toEqual(
    [0, 10, 20].map((n) => n * blockBytes),
  );
  expect(arena.bytesOf("kv pool")).toBe(byteLength);
  expect(layOutKvPool({ ...SPEC, kvCacheDtype: "f32" }, new Arena()).byteLength).toBe(
    2 * byteLength,
  );
});

it("says which head sizes it cannot run", () => {
  const withHeads = (headDim: number) => () => layOutKvPool({ ...SPEC, headDim }, new Arena());
  expect(withHeads(60)).toThrow(/multiple of 8.*has 60/);
  expect(withHeads(520)).toThrow(/up to 512.*has 520/);
  expect(withHeads(512)().layers).toHaveLength(3);
});
