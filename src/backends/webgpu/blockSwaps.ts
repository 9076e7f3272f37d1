import type { BlockSwap } from "../../engine/step.ts";
import { invariant, QuireError } from "../../errors.ts";
import { moveGrid, moveShape } from "./blockCopies.ts";
import { type Kernel, type KernelCache, read, write } from "./kernel.ts";
import type { KvPool, PoolWindow } from "./kvPool.ts";
import { alignUp, BINDING_ALIGNMENT, type BufferLimits } from "./limits.ts";
import { outOfMemory, watchMemory } from "./outOfMemory.ts";
import type { Readback } from "./readback.ts";

/** Most bytes that move at once; a single block may be larger. */
const STAGING_BYTES = 16 * 2 ** 20;

type Direction = "out" | "in";

/** A block in host memory, [layer][K|V][kvHead][slot][headDim]; undefined until it has arrived. */
interface HostBlock {
  bytes: Uint8Array<ArrayBuffer> | undefined;
}

/** The part of the staging buffer that belongs to a window of the pool: [blocks][layers of the window]. */
interface Section {
  readonly window: PoolWindow;
  /** Where it starts in the staging buffer. */
  readonly offset: number;
  /** Where the window's layers start in a block, and how many bytes of a block they are. */
  readonly blockOffset: number;
  readonly blockBytes: number;
  readonly bindGroups: Readonly<Record<Direction, GPUBindGroup>>;
}

interface Staging {
  readonly buffer: GPUBuffer;
  /** u32 [blocks a round] */
  readonly blocks: GPUBuffer;
  readonly sections: readonly Section[];
}

export interface BlockSwapsOptions {
  readonly device: GPUDevice;
  readonly kernels: KernelCache;
  readonly pool: KvPool;
  readonly numLayers: number;
  readonly numHostBlocks: number;
  readonly limits: BufferLimits;
  readonly readback: Readback;
}

/**
 * Moves whole blocks between the pool and host memory, in rounds through one staging buffer, which is
 * made at the first swap. Submits on its own: a step's swaps go before the step.
 */
export class BlockSwaps {
  /** Bytes of a block, K and V of all layers. */
  readonly blockBytes: number;
  readonly #options: BlockSwapsOptions;
  readonly #kernels: Readonly<Record<Direction, Kernel>>;
  readonly #blocksPerRound: number;
  readonly #hostBlocks = new Map<number, HostBlock>();
  readonly #readable = new Set<GPUBuffer>(); // blocks on their way out
  #staging: Staging | undefined;

  private constructor(options: BlockSwapsOptions, kernels: Readonly<Record<Direction, Kernel>>) {
    const { pool, numLayers, limits } = options;
    this.#options = options;
    this.#kernels = kernels;
    this.blockBytes = numLayers * pool.layerBlockBytes;
    // Within a binding, so that sections can be bound; a block's part in a window is no larger than the window.
    const most = Math.floor(Math.min(STAGING_BYTES, limits.maxBindingBytes) / this.blockBytes);
    this.#blocksPerRound = Math.max(1, Math.min(most, pool.numBlocks));
  }

  /** Compiles. Allocates nothing. */
  static async create(options: BlockSwapsOptions): Promise<BlockSwaps> {
    const list = { type: "read-only-storage" } as const;
    const written = { type: "storage" } as const;
    const shape = { type: "uniform" } as const;
    const { kernels } = options;
    const [outKernel, inKernel] = await Promise.all([
      kernels.get("swapBlocks", { OUT: 1 }, { 0: list, 1: list, 2: written, 11: shape }),
      kernels.get("swapBlocks", {}, { 0: list, 1: written, 2: list, 11: shape }),
    ]);
    return new BlockSwaps(options, { out: outKernel, in: inKernel });
  }

  /** Bytes held in host memory. */
  get swappedBytes(): number {
    let bytes = 0;
    for (const block of this.#hostBlocks.values()) bytes += block.bytes?.byteLength ?? 0;
    return bytes;
  }

  /** Bytes of the buffers that blocks move through. */
  get byteLength(): number {
    let bytes = (this.#staging?.buffer.size ?? 0) + (this.#staging?.blocks.size ?? 0);
    for (const { size } of this.#readable) bytes += size;
    return bytes;
  }

  /** What these host blocks hold, or will when it has arrived, is of no use any more. */
  release(hostBlocks: readonly number[]): void {
    for (const hostBlock of hostBlocks) this.#hostBlocks.delete(hostBlock);
  }

  /**
   * Submits a step's swaps, first out, then in. Resolves when the host has what goes out, and rejects with
   * `out-of-memory` where the buffers on the way find no room; undefined if nothing moves. A block that
   * came in is in host memory no more.
   */
  submit(swapOuts: readonly BlockSwap[], swapIns: readonly BlockSwap[]): Promise<void> | undefined {
    if (swapOuts.length + swapIns.length === 0) return undefined;
    const endWatch = watchMemory(this.#options.device);
    let hadRoom: Promise<boolean>;
    let arrivals: Promise<void>[];
    try {
      this.#staging ??= this.#allocate();
      const staging = this.#staging;
      arrivals = this.#rounds(swapOuts).map((round) => this.#swapOut(staging, round));
      for (const round of this.#rounds(swapIns)) this.#swapIn(staging, round);
    } finally {
      hadRoom = endWatch();
    }
    return this.#settle(hadRoom, Promise.all(arrivals), this.byteLength);
  }

  dispose(): void {
    for (const buffer of this.#readable) buffer.destroy();
    this.#releaseStaging();
    this.#hostBlocks.clear();
  }

  async #settle(
    hadRoom: Promise<boolean>,
    arrivals: Promise<unknown>,
    byteLength: number,
  ): Promise<void> {
    arrivals.catch(() => {}); // without room they fail too, and say less
    if (await hadRoom) {
      await arrivals;
      return;
    }
    // Of no use to later swaps either.
    this.#releaseStaging();
    throw outOfMemory("buffers that swapped blocks go through", byteLength);
  }

  #releaseStaging(): void {
    this.#staging?.buffer.destroy();
    this.#staging?.blocks.destroy();
    this.#staging = undefined;
  }

  #rounds(swaps: readonly BlockSwap[]): (readonly BlockSwap[])[] {
    const { numHostBlocks } = this.#options;
    for (const { hostBlock } of swaps) {
      invariant(
        hostBlock >= 0 && hostBlock < numHostBlocks,
        `Host block ${hostBlock} does not exist; there are ${numHostBlocks}.`,
      );
    }
    const rounds: (readonly BlockSwap[])[] = [];
    for (let first = 0; first < swaps.length; first += this.#blocksPerRound) {
      rounds.push(swaps.slice(first, first + this.#blocksPerRound));
    }
    return rounds;
  }

  #swapOut({ buffer, blocks, sections }: Staging, swaps: readonly BlockSwap[]): Promise<void> {
    const { device, readback } = this.#options;
    const byteLength = swaps.length * this.blockBytes;
    const readable = device.createBuffer({
      label: "blocks on their way out",
      size: byteLength,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    this.#readable.add(readable);
    writeBlockList(device, blocks, swaps);
    const encoder = device.createCommandEncoder({ label: "swap out" });
    this.#dispatch(encoder, "out", sections, swaps.length);
    for (const { offset, blockOffset, blockBytes } of sections) {
      const size = swaps.length * blockBytes;
      encoder.copyBufferToBuffer(buffer, offset, readable, swaps.length * blockOffset, size);
    }
    device.queue.submit([encoder.finish()]);

    // A host block that is taken again before its bytes have come belongs to the later swap.
    const hostBlocks = swaps.map(({ hostBlock }) => {
      const entry: HostBlock = { bytes: undefined };
      this.#hostBlocks.set(hostBlock, entry);
      return entry;
    });
    const arrived = readback.map(readable, byteLength, (all) => {
      for (const [i, entry] of hostBlocks.entries()) {
        const bytes = hostMemory(this.blockBytes);
        for (const { blockOffset, blockBytes } of sections) {
          const at = swaps.length * blockOffset + i * blockBytes;
          bytes.set(new Uint8Array(all, at, blockBytes), blockOffset);
        }
        entry.bytes = bytes;
      }
    });
    return arrived.finally(() => {
      this.#readable.delete(readable);
      readable.destroy();
    });
  }

  #swapIn({ buffer, blocks, sections }: Staging, swaps: readonly BlockSwap[]): void {
    const { device } = this.#options;
    writeBlockList(device, blocks, swaps);
    const hostBytes = swaps.map(({ hostBlock }) => {
      const bytes = this.#hostBlocks.get(hostBlock)?.bytes;
      invariant(bytes, `Host block ${hostBlock} is swapped in and holds nothing.`);
      this.#hostBlocks.delete(hostBlock);
      return bytes;
    });
    for (const { offset, blockOffset, blockBytes } of sections) {
      const part = new Uint8Array(swaps.length * blockBytes);
      for (const [i, bytes] of hostBytes.entries()) {
        part.set(bytes.subarray(blockOffset, blockOffset + blockBytes), i * blockBytes);
      }
      device.queue.writeBuffer(buffer, offset, part);
    }
    const encoder = device.createCommandEncoder({ label: "swap in" });
    this.#dispatch(encoder, "in", sections, swaps.length);
    device.queue.submit([encoder.finish()]);
  }

  #dispatch(
    encoder: GPUCommandEncoder,
    direction: Direction,
    sections: readonly Section[],
    numBlocks: number,
  ): void {
    const pass = encoder.beginComputePass({ label: `swap ${direction}` });
    pass.setPipeline(this.#kernels[direction].pipeline);
    for (const { window, bindGroups } of sections) {
      pass.setBindGroup(0, bindGroups[direction]);
      pass.dispatchWorkgroups(...moveGrid(this.#options.pool, window, numBlocks));
    }
    pass.end();
  }

  #allocate(): Staging {
    const { device, pool } = this.#options;
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const places: Omit<Section, "bindGroups">[] = [];
    let size = 0;
    let blockOffset = 0;
    for (const window of pool.windows) {
      const blockBytes = window.numLayers * pool.layerBlockBytes;
      const offset = alignUp(size, BINDING_ALIGNMENT);
      places.push({ window, offset, blockOffset, blockBytes });
      size = offset + this.#blocksPerRound * blockBytes;
      blockOffset += blockBytes;
    }
    const buffer = device.createBuffer({
      label: "swap staging",
      size,
      usage: STORAGE | COPY_SRC | COPY_DST,
    });
    const blocks = device.createBuffer({
      label: "swapped blocks",
      size: this.#blocksPerRound * 4,
      usage: STORAGE | COPY_DST,
    });
    const sections = places.map((place) => ({
      ...place,
      bindGroups: this.#bind(place, buffer, blocks),
    }));
    return { buffer, blocks, sections };
  }

  #bind(
    { window, offset, blockBytes }: Omit<Section, "bindGroups">,
    buffer: GPUBuffer,
    blocks: GPUBuffer,
  ): Section["bindGroups"] {
    const { kernels, pool } = this.#options;
    const staged = { buffer, offset, size: this.#blocksPerRound * blockBytes };
    const common = { 0: read(blocks), 11: kernels.constants(moveShape(pool, window)) };
    return {
      out: kernels.bind(this.#kernels.out, {
        ...common,
        1: read(window.binding),
        2: write(staged),
      }),
      in: kernels.bind(this.#kernels.in, { ...common, 1: write(window.binding), 2: read(staged) }),
    };
  }
}

function hostMemory(byteLength: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(byteLength);
  } catch (cause) {
    throw new QuireError(
      "out-of-memory",
      `There is no memory for a swapped-out block of ${byteLength} bytes. Lower swapBytes or close other pages.`,
      { bytes: byteLength },
      { cause },
    );
  }
}

function writeBlockList(device: GPUDevice, list: GPUBuffer, swaps: readonly BlockSwap[]): void {
  device.queue.writeBuffer(
    list,
    0,
    Uint32Array.from(swaps, ({ block }) => block),
  );
}
