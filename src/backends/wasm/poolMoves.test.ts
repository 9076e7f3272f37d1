import { afterEach, describe, expect, it, vi } from "vitest";
import { Arena } from "./arena.ts";
import { layOutKvPool } from "./kvPool.ts";
import { PoolMoves } from "./poolMoves.ts";

const NUM_LAYERS = 3;
const NUM_BLOCKS = 8;
const NUM_HOST_BLOCKS = 4;
const NONE = { hostReleases: [], swapOuts: [], swapIns: [], copies: [] };

afterEach(() => {
  vi.unstubAllGlobals();
});

/** A pool whose blocks hold words of their own, layer by layer. */
function createPool(kvCacheDtype: "f16" | "f32", shared: boolean) {
  const arena = new Arena();
  const layout = layOutKvPool(
    {
      numLayers: NUM_LAYERS,
      numBlocks: NUM_BLOCKS,
      numKvHeads: 2,
      headDim: 8,
      blockSize: 16,
      kvCacheDtype,
    },
    arena,
  );
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared });
  const words = new Uint32Array(memory.buffer);
  words.forEach((_, i) => {
    words[i] = i * 2654435761;
  });
  const contents = (block: number): readonly (readonly number[])[] =>
    layout.layers.map((address) => {
      const first = (address + block * layout.blockBytes) / 4;
      return [...words.subarray(first, first + layout.blockBytes / 4)];
    });
  const all = () => Array.from({ length: NUM_BLOCKS }, (_, block) => contents(block));
  const fill = (block: number, value: number): void => {
    for (const address of layout.layers) {
      const first = (address + block * layout.blockBytes) / 4;
      words.fill(value, first, first + layout.blockBytes / 4);
    }
  };
  return { layout, words, all, fill, moves: new PoolMoves(layout, NUM_HOST_BLOCKS, memory) };
}

describe.each([
  ["f16", false],
  ["f16", true],
  ["f32", true],
] as const)("moves in a pool of %s, shared: %s", (dtype, shared) => {
  it("copies whole blocks in all layers and touches nothing else", () => {
    const { layout, words, all, moves } = createPool(dtype, shared);
    const before = all();
    const outside = words.slice(0, layout.layers[0]! / 4);
    const copies = [
      { source: 0, target: 7 },
      { source: 6, target: 1 },
      { source: 0, target: 3 },
    ];
    moves.run({ ...NONE, copies });
    const expected = [...before];
    for (const { source, target } of copies) expected[target] = before[source]!;
    expect(all()).toEqual(expected);
    expect(words.subarray(0, outside.length)).toEqual(outside);
    expect(moves.hostBytes).toBe(0);
  });

  it("brings blocks to the host and back, to other blocks", () => {
    const { all, fill, moves } = createPool(dtype, shared);
    const before = all();
    const swapOuts = [
      { block: 2, hostBlock: 3 },
      { block: 7, hostBlock: 0 },
    ];
    moves.run({ ...NONE, swapOuts });
    expect(all()).toEqual(before);
    expect(moves.hostBytes).toBe(2 * moves.blockBytes);
    for (let block = 0; block < NUM_BLOCKS; block++) fill(block, block);
    const filled = all();
    moves.run({ ...NONE, swapIns: [{ block: 5, hostBlock: 3 }] });
    expect(all()).toEqual(filled.with(5, before[2]!));
    expect(moves.hostBytes).toBe(moves.blockBytes);
    moves.run({ ...NONE, swapIns: [{ block: 0, hostBlock: 0 }] });
    expect(all()).toEqual(filled.with(5, before[2]!).with(0, before[7]!));
    expect(moves.hostBytes).toBe(0);
  });

  it("swaps out, then in, then copies", () => {
    const { all, moves } = createPool(dtype, shared);
    const before = all();
    moves.run({ ...NONE, swapOuts: [{ block: 1, hostBlock: 1 }] });
    moves.run({
      ...NONE,
      swapOuts: [{ block: 4, hostBlock: 2 }], // makes room for what comes in
      swapIns: [{ block: 4, hostBlock: 1 }],
      copies: [{ source: 4, target: 6 }], // of what came in
    });
    expect(all()).toEqual(before.with(4, before[1]!).with(6, before[1]!));
    moves.run({ ...NONE, swapIns: [{ block: 0, hostBlock: 2 }] });
    expect(all()[0]).toEqual(before[4]);
  });

  it("gives up the memory of host blocks that are released, before it takes more", () => {
    const { all, moves } = createPool(dtype, shared);
    const before = all();
    const swapOuts = [0, 1, 2].map((hostBlock) => ({ block: hostBlock, hostBlock }));
    moves.run({ ...NONE, swapOuts });
    moves.run({
      ...NONE,
      hostReleases: [0, 2, 3], // the last holds nothing
      swapOuts: [],
      swapIns: [{ block: 5, hostBlock: 1 }],
    });
    expect(moves.hostBytes).toBe(0);
    expect(all()).toEqual(before.with(5, before[1]!));
    expect(() => moves.run({ ...NONE, swapIns: [{ block: 5, hostBlock: 0 }] })).toThrow(
      /Host block 0 .* holds nothing/,
    );
  });

  it("takes a host block's memory again for another block", () => {
    const { all, moves } = createPool(dtype, shared);
    const before = all();
    moves.run({ ...NONE, swapOuts: [{ block: 1, hostBlock: 0 }] });
    moves.run({ ...NONE, swapOuts: [{ block: 2, hostBlock: 0 }] });
    expect(moves.hostBytes).toBe(moves.blockBytes);
    moves.run({ ...NONE, swapIns: [{ block: 3, hostBlock: 0 }] });
    expect(all()).toEqual(before.with(3, before[2]!));
  });
});

describe("what cannot be moved", () => {
  it("moves nothing for blocks that are not there", () => {
    const { all, moves } = createPool("f16", false);
    const before = all();
    const swapOuts = [{ block: 0, hostBlock: 0 }];
    for (const [step, message] of [
      [{ copies: [{ source: 0, target: NUM_BLOCKS }] }, /Block 8 of 8/],
      [{ copies: [{ source: -1, target: 0 }] }, /Block -1 of 8/],
      [{ swapOuts: [{ block: 8, hostBlock: 0 }] }, /Block 8 of 8/],
      [{ swapOuts: [{ block: 0, hostBlock: 4 }] }, /host block 4 of 4/],
      [{ swapOuts, swapIns: [{ block: 0, hostBlock: 0 }] }, /Host block 0 .* holds nothing/],
      [{ swapOuts, swapIns: [{ block: 1, hostBlock: 2 }] }, /Host block 2 .* holds nothing/],
    ] as const) {
      expect(() => moves.run({ ...NONE, ...step })).toThrow(message);
      expect(all()).toEqual(before);
      expect(moves.hostBytes).toBe(0);
    }
  });

  it("says so, and moves nothing, where there is no host memory", () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const layout = { layers: [1024], numBlocks: 1, blockBytes: 2 ** 50, byteLength: 2 ** 50 };
    const moves = new PoolMoves(layout, 1, memory);
    const swapOuts = [{ block: 0, hostBlock: 0 }];
    expect(() => moves.run({ ...NONE, swapOuts })).toThrow(
      expect.objectContaining({
        code: "out-of-memory",
        message: expect.stringContaining(`${2 ** 50} bytes`),
      }),
    );
    expect(moves.hostBytes).toBe(0);
  });

  it("takes whatever the browser throws for want of memory: Firefox throws a string", () => {
    const { all, moves } = createPool("f16", false);
    const before = all();
    const refusing = vi.fn(function refuse() {
      throw "out of memory";
    });
    vi.stubGlobal("Uint8Array", refusing);
    const swapOuts = [{ block: 0, hostBlock: 0 }];
    expect(() => moves.run({ ...NONE, swapOuts })).toThrow(
      expect.objectContaining({ code: "out-of-memory", cause: "out of memory" }),
    );
    vi.unstubAllGlobals();
    expect(refusing).toHaveBeenCalledOnce();
    expect(all()).toEqual(before);
    expect(moves.hostBytes).toBe(0);
    moves.run({ ...NONE, swapOuts });
    expect(moves.hostBytes).toBe(moves.blockBytes);
  });
});
