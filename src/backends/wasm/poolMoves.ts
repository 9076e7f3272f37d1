import type { BlockSwap, Step } from "../../engine/step.ts";
import { invariant, QuireError } from "../../errors.ts";
import type { KvPoolLayout } from "./kvPool.ts";

/**
 * Moves whole blocks ahead of a step's rows: within the KV pool, and between it and the host tier. That
 * lies outside the WebAssembly memory, whose pages can never be given back.
 *
 * The caller's thread moves them, layer by layer, as fast as a kernel's `memory.copy` would. The start
 * of the program that follows shows the bytes to the other threads, as it does the step's tables.
 */
export class PoolMoves {
  readonly #pool: KvPoolLayout;
  readonly #numHostBlocks: number;
  readonly #bytes: Uint8Array;
  /** By host block: K and V of all layers, [layer][blockBytes]. */
  readonly #host = new Map<number, Uint8Array>();

  constructor(pool: KvPoolLayout, numHostBlocks: number, memory: WebAssembly.Memory) {
    this.#pool = pool;
    this.#numHostBlocks = numHostBlocks;
    this.#bytes = new Uint8Array(memory.buffer);
  }

  /** Bytes of a block, all layers. */
  get blockBytes(): number {
    return this.#pool.layers.length * this.#pool.blockBytes;
  }

  /** Bytes of host memory that are held now. */
  get hostBytes(): number {
    return this.#host.size * this.blockBytes;
  }

  /**
   * Releases, swaps out, swaps in and copies. No thread may be in the program. Throws `out-of-memory` where
   * there is no host memory for what goes out; nothing has moved then.
   */
  run(step: Pick<Step, "hostReleases" | "swapOuts" | "swapIns" | "copies">): void {
    const { hostReleases, swapOuts, swapIns, copies } = step;
    for (const { block } of [...swapOuts, ...swapIns]) this.#checkBlock(block);
    for (const { source, target } of copies) {
      this.#checkBlock(source);
      this.#checkBlock(target);
    }
    const sources = swapIns.map(({ hostBlock }) => this.#held(hostBlock));
    for (const hostBlock of hostReleases) this.#host.delete(hostBlock);
    const targets = this.#hostMemoryFor(swapOuts);
    const { layers, blockBytes } = this.#pool;
    for (const [i, { block, hostBlock }] of swapOuts.entries()) {
      for (const [layer, address] of layers.entries()) {
        targets[i]!.set(this.#blockAt(address, block), layer * blockBytes);
      }
      this.#host.set(hostBlock, targets[i]!);
    }
    for (const [i, { block, hostBlock }] of swapIns.entries()) {
      for (const [layer, address] of layers.entries()) {
        const start = layer * blockBytes;
        this.#blockAt(address, block).set(sources[i]!.subarray(start, start + blockBytes));
      }
      this.#host.delete(hostBlock);
    }
    for (const { source, target } of copies) {
      for (const address of layers) {
        const start = address + source * blockBytes;
        this.#bytes.copyWithin(address + target * blockBytes, start, start + blockBytes);
      }
    }
  }

  #blockAt(layer: number, block: number): Uint8Array {
    const { blockBytes } = this.#pool;
    const start = layer + block * blockBytes;
    return this.#bytes.subarray(start, start + blockBytes);
  }

  #held(hostBlock: number): Uint8Array {
    const bytes = this.#host.get(hostBlock);
    invariant(bytes !== undefined, `Host block ${hostBlock} is swapped in and holds nothing.`);
    return bytes;
  }

  /** For each swap-out: what its host block has already, else new. */
  #hostMemoryFor(swapOuts: readonly BlockSwap[]): readonly Uint8Array[] {
    for (const { hostBlock } of swapOuts) {
      invariant(
        hostBlock >= 0 && hostBlock < this.#numHostBlocks,
        `A block goes to host block ${hostBlock} of ${this.#numHostBlocks}.`,
      );
    }
    try {
      return swapOuts.map(
        ({ hostBlock }) => this.#host.get(hostBlock) ?? new Uint8Array(this.blockBytes),
      );
    } catch (cause) {
      throw new QuireError(
        "out-of-memory",
        `The browser gave no memory for ${swapOuts.length} swapped-out blocks of ${this.blockBytes} bytes beside ${this.hostBytes} bytes of others. Lower swapBytes, or set it to 0 to recompute instead.`,
        { blocks: swapOuts.length, blockBytes: this.blockBytes, held: this.hostBytes },
        { cause },
      );
    }
  }

  #checkBlock(block: number): void {
    const { numBlocks } = this.#pool;
    invariant(block >= 0 && block < numBlocks, `Block ${block} of ${numBlocks} is moved.`);
  }
}
