import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PlanSpec } from "../../src/backends/ops.ts";
import { copyDispatches } from "../../src/backends/webgpu/blockCopies.ts";
import { BlockSwaps } from "../../src/backends/webgpu/blockSwaps.ts";
import type { Dispatch } from "../../src/backends/webgpu/dispatch.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import { KvPool } from "../../src/backends/webgpu/kvPool.ts";
import { type BufferLimits, bufferLimits } from "../../src/backends/webgpu/limits.ts";
import { Readback } from "../../src/backends/webgpu/readback.ts";
import { StepBuffer } from "../../src/backends/webgpu/stepBuffer.ts";
import type { BlockCopy, BlockSwap } from "../../src/engine/step.ts";
import { EMPTY_STEP } from "../fixtures/emptyStep.ts";
import { Random } from "../fixtures/random.ts";
import { openDevice, testedIcd } from "./device.ts";

const MAX_SEQUENCES = 6;

interface Shape
  extends Pick<PlanSpec, "blockSize" | "numKvHeads" | "headDim" | "numLayers" | "numBlocks"> {
  readonly kvCacheDtype: "f16" | "f32";
  readonly limits?: Partial<BufferLimits>;
  /** Windows of the pool that this makes. */
  readonly windows: number;
}

const SHAPES: readonly Shape[] = [
  // The least that there is; a block is half an alignment of bindings, and so is what pads a layer.
  {
    blockSize: 8,
    numKvHeads: 1,
    headDim: 4,
    numLayers: 1,
    numBlocks: 5,
    kvCacheDtype: "f16",
    windows: 1,
  },
  {
    blockSize: 8,
    numKvHeads: 1,
    headDim: 20,
    numLayers: 9,
    numBlocks: 7,
    kvCacheDtype: "f16",
    windows: 1,
  },
  {
    blockSize: 16,
    numKvHeads: 3,
    headDim: 36,
    numLayers: 80,
    numBlocks: 6,
    kvCacheDtype: "f16",
    windows: 1,
  },
  // Two layers a window, three a buffer: windows of two and of one.
  {
    blockSize: 8,
    numKvHeads: 1,
    headDim: 20,
    numLayers: 8,
    numBlocks: 7,
    kvCacheDtype: "f16",
    limits: { maxBindingBytes: 10_000, maxBufferBytes: 14_000 },
    windows: 5,
  },
  // One layer a window, and no more of a block than a layer in a binding.
  {
    blockSize: 32,
    numKvHeads: 5,
    headDim: 68,
    numLayers: 3,
    numBlocks: 9,
    kvCacheDtype: "f32",
    limits: { maxBindingBytes: 9 * 87_040 },
    windows: 3,
  },
];

describe(`block copies and swaps against a bytewise model on ${testedIcd}`, () => {
  let device: GPUDevice;
  let kernels: KernelCache;
  const errors: string[] = [];
  beforeAll(async () => {
    device = await openDevice();
    device.addEventListener("uncapturederror", ({ error }) => errors.push(error.message));
    kernels = new KernelCache(device);
  });
  afterAll(() => device.destroy());

  test.each(SHAPES)(
    "$numLayers layers, blocks of $blockSize * $numKvHeads * $headDim in $kvCacheDtype, $windows windows",
    async (shape) => {
      const random = new Random(shape.headDim + shape.numLayers);
      const { numBlocks } = shape;
      const harness = await MoveHarness.create(device, kernels, shape, random);
      expect(harness.pool.windows).toHaveLength(shape.windows);
      expect(harness.pool.windows.reduce((sum, { numLayers }) => sum + numLayers, 0)).toBe(
        shape.numLayers,
      );
      const shuffled = (): number[] => {
        const keyed = Array.from({ length: numBlocks }, (_, block) => ({
          block,
          key: random.bits(),
        }));
        return keyed.sort((a, b) => a.key - b.key).map(({ block }) => block);
      };
      let inHost: number[] = []; // host blocks
      for (let step = 0; step < 8; step++) {
        // All, none or some go out, to host blocks that nobody comes in from; all that are there come in.
        const hosts = Array.from({ length: numBlocks }, (_, i) => (step % 2) * numBlocks + i);
        const numOut = [numBlocks, 0, 1, random.integer(1, numBlocks)][step % 4]!;
        const swapOuts = shuffled()
          .slice(0, numOut)
          .map((block, i) => ({ block, hostBlock: hosts[i]! }));
        const targets = shuffled();
        const swapIns = inHost.map((hostBlock) => ({ block: targets.pop()!, hostBlock }));
        // What came in may be copied; what is left of the targets is written.
        const numCopies = step === 3 ? 0 : Math.min(MAX_SEQUENCES, targets.length);
        const copied = targets.slice(0, random.integer(Math.min(1, numCopies), numCopies));
        const sources = shuffled().filter((block) => !copied.includes(block));
        const copies =
          sources.length === 0
            ? []
            : copied.map((target, i) => ({ source: sources[i % sources.length]!, target }));
        await harness.run(swapOuts, swapIns, copies);
        inHost = swapOuts.map(({ hostBlock }) => hostBlock);
        expect(harness.swaps.swappedBytes).toBe(inHost.length * harness.swaps.blockBytes);
        await harness.checkPool();
      }
      expect(errors).toEqual([]);
      harness.dispose();
    },
  );

  test("more than the staging buffer holds goes in rounds", async () => {
    const shape = {
      blockSize: 32,
      numKvHeads: 8,
      headDim: 128,
      numLayers: 4,
      numBlocks: 35,
      kvCacheDtype: "f32",
      windows: 1,
    } as const;
    const harness = await MoveHarness.create(device, kernels, shape, new Random(1));
    const { swaps } = harness;
    expect(swaps.blockBytes).toBe(2 ** 20);
    expect(swaps.byteLength).toBe(0);
    const all = Array.from({ length: 35 }, (_, block) => ({ block, hostBlock: 34 - block }));
    await harness.run(all, [], []);
    expect(swaps.swappedBytes).toBe(35 * 2 ** 20);
    // What the blocks went through on their way has been freed.
    expect(swaps.byteLength).toBe(16 * 2 ** 20 + 16 * 4);
    await harness.run(
      [],
      all.map(({ hostBlock }, i) => ({ block: (i * 3) % 35, hostBlock })),
      [],
    );
    expect(swaps.swappedBytes).toBe(0);
    await harness.checkPool();
    expect(errors).toEqual([]);
    harness.dispose();
  });

  test("copies are one dispatch a window; nothing is dispatched where nothing is copied", async () => {
    const harness = await MoveHarness.create(device, kernels, SHAPES[3]!, new Random(2));
    await harness.run([], [], []);
    expect(harness.numDispatches).toBe(0);
    const copies = [1, 2, 3, 4, 5, 6].map((target) => ({ source: 0, target }));
    await harness.run([], [], copies);
    expect(harness.numDispatches).toBe(5);
    await harness.checkPool();
    harness.dispose();
  });

  test("a host block that does not exist or holds nothing is a bug", async () => {
    const harness = await MoveHarness.create(device, kernels, SHAPES[0]!, new Random(3));
    const { swaps } = harness;
    const swap = { block: 1, hostBlock: 2 * SHAPES[0]!.numBlocks };
    expect(swaps.submit([], [])).toBeUndefined();
    expect(() => swaps.submit([swap], [])).toThrow("does not exist");
    expect(() => swaps.submit([], [{ block: 1, hostBlock: 2 }])).toThrow("holds nothing");
    await swaps.submit([{ block: 1, hostBlock: 2 }], []);
    await swaps.submit([], [{ block: 0, hostBlock: 2 }]);
    expect(() => swaps.submit([], [{ block: 0, hostBlock: 2 }])).toThrow("holds nothing");
    harness.dispose();
  });

  test("a host block taken again on the way belongs to the later swap; what is under way ends with dispose", async () => {
    const harness = await MoveHarness.create(device, kernels, SHAPES[1]!, new Random(4));
    const { swaps } = harness;
    const arrivals = [
      swaps.submit([{ block: 1, hostBlock: 2 }], []),
      swaps.submit([{ block: 3, hostBlock: 2 }], []),
    ];
    await Promise.all(arrivals);
    expect(swaps.swappedBytes).toBe(swaps.blockBytes);
    harness.swapOut({ block: 3, hostBlock: 2 });
    await harness.run([], [{ block: 5, hostBlock: 2 }], []);
    await harness.checkPool();

    const leaving = swaps.submit([{ block: 1, hostBlock: 2 }], []);
    swaps.dispose();
    await expect(leaving).rejects.toThrow();
    expect(swaps.swappedBytes).toBe(0);
    harness.dispose();
  });
});

/** A pool with copies and swaps on the device, and its model: the words of its buffers in an array each. */
class MoveHarness {
  readonly pool: KvPool;
  readonly swaps: BlockSwaps;
  /** Of the last step's copies. */
  numDispatches = 0;
  readonly #device: GPUDevice;
  readonly #numLayers: number;
  readonly #stepBuffer: StepBuffer;
  readonly #copies: readonly Dispatch[];
  readonly #images = new Map<GPUBuffer, Uint32Array<ArrayBuffer>>();
  readonly #hostBlocks = new Map<number, readonly Uint32Array[]>();

  private constructor(
    device: GPUDevice,
    numLayers: number,
    pool: KvPool,
    swaps: BlockSwaps,
    stepBuffer: StepBuffer,
    copies: readonly Dispatch[],
  ) {
    this.#device = device;
    this.#numLayers = numLayers;
    this.pool = pool;
    this.swaps = swaps;
    this.#stepBuffer = stepBuffer;
    this.#copies = copies;
  }

  static async create(
    device: GPUDevice,
    kernels: KernelCache,
    shape: Shape,
    random: Random,
  ): Promise<MoveHarness> {
    const { numBlocks, numLayers } = shape;
    const limits = { ...bufferLimits(device), ...shape.limits };
    const spec: PlanSpec = {
      ...shape,
      minBlocks: numBlocks,
      numHostBlocks: 2 * numBlocks,
      numHeads: shape.numKvHeads,
      width: 32,
      vocabularySize: 32,
      rmsEpsilon: 1e-5,
      rope: { pairing: "neox", frequencies: new Float64Array(2), magnitude: 1 },
      maxSequences: MAX_SEQUENCES,
      maxContext: 8,
      maxRows: 1,
    };
    const pool = await KvPool.create(device, spec, limits);
    const { numHostBlocks } = spec;
    const readback = new Readback(device);
    const swaps = await BlockSwaps.create({
      device,
      kernels,
      pool,
      numLayers,
      numHostBlocks,
      limits,
      readback,
    });
    const stepBuffer = await StepBuffer.create(device, {
      maxRows: 1,
      maxSequences: MAX_SEQUENCES,
      maxContext: 8,
      tableBlocks: 1,
    });
    const copies = await copyDispatches(kernels, stepBuffer.buffer, pool);
    const harness = new MoveHarness(device, numLayers, pool, swaps, stepBuffer, copies);
    for (const {
      binding: { buffer },
    } of pool.windows) {
      const image = new Uint32Array(buffer.size / 4);
      const first = random.bits();
      // An odd factor: no two words are alike.
      for (let i = 0; i < image.length; i++) image[i] = Math.imul(first + i, 0x9e3779b1);
      device.queue.writeBuffer(buffer, 0, image);
      harness.#images.set(buffer, image);
    }
    return harness;
  }

  /** Runs the moves of a step, and the model's. */
  async run(
    swapOuts: readonly BlockSwap[],
    swapIns: readonly BlockSwap[],
    copies: readonly BlockCopy[],
  ): Promise<void> {
    const counts = this.#stepBuffer.write({ ...EMPTY_STEP, copies });
    const swapped = this.swaps.submit(swapOuts, swapIns);
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const dispatch = pass.dispatchWorkgroups.bind(pass);
    this.numDispatches = 0;
    pass.dispatchWorkgroups = (...grid: Parameters<typeof dispatch>) => {
      this.numDispatches++;
      return dispatch(...grid);
    };
    for (const encode of this.#copies) encode(pass, counts);
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
    await swapped;

    for (const swap of swapOuts) this.swapOut(swap);
    for (const { block, hostBlock } of swapIns) {
      for (const [layer, words] of this.#hostBlocks.get(hostBlock)!.entries())
        this.#block(layer, block).set(words);
    }
    for (const { source, target } of copies) {
      for (let layer = 0; layer < this.#numLayers; layer++) {
        this.#block(layer, target).set(this.#block(layer, source));
      }
    }
  }

  /** In the model alone. */
  swapOut({ block, hostBlock }: BlockSwap): void {
    const layers = Array.from({ length: this.#numLayers }, (_, layer) =>
      this.#block(layer, block).slice(),
    );
    this.#hostBlocks.set(hostBlock, layers);
  }

  /** The whole buffers are the model's, padding included. */
  async checkPool(): Promise<void> {
    for (const [buffer, image] of this.#images) {
      const readback = this.#device.createBuffer({
        size: buffer.size,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      });
      const encoder = this.#device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, 0, readback, 0, buffer.size);
      this.#device.queue.submit([encoder.finish()]);
      await readback.mapAsync(GPUMapMode.READ);
      const words = new Uint32Array(readback.getMappedRange());
      const firstWrong = words.findIndex((word, i) => word !== image[i]);
      readback.destroy();
      expect(firstWrong).toBe(-1);
    }
  }

  dispose(): void {
    this.swaps.dispose();
    this.pool.dispose();
    this.#stepBuffer.dispose();
  }

  #block(layer: number, block: number): Uint32Array {
    const { buffer, offset = 0 } = this.pool.layer(layer);
    const words = this.pool.layerBlockBytes / 4;
    const at = offset / 4 + block * words;
    return this.#images.get(buffer)!.subarray(at, at + words);
  }
}
