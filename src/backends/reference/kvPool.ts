import type { BlockCopy, BlockSwap } from "../../engine/step.ts";
import { invariant } from "../../errors.ts";
import type { PlanSpec } from "../ops.ts";
import { roundToHalf } from "./half.ts";

/** K and V of all layers in blocks, the swapped-out ones, and where each slot's sequence has its blocks. */
export class KvPool {
  readonly #spec: PlanSpec;
  readonly #round: (x: number) => number;
  /** [layer][block][K|V][kvHead][offset in block][headDim] */
  readonly #values: Float32Array;
  /** [slot][index] -> block */
  readonly #blockTables: number[][];
  /** [hostBlock] -> K and V of a block, [layer][K|V][kvHead][offset in block][headDim] */
  readonly #hostBlocks = new Map<number, Float32Array>();

  constructor(spec: PlanSpec) {
    this.#spec = spec;
    this.#round = spec.kvCacheDtype === "f16" ? roundToHalf : Math.fround;
    const { numLayers, numBlocks, numKvHeads, blockSize, headDim } = spec;
    const length = numLayers * numBlocks * 2 * numKvHeads * blockSize * headDim;
    // NaN, so that reading what nobody wrote cannot go unseen.
    this.#values = new Float32Array(length).fill(Number.NaN);
    this.#blockTables = Array.from({ length: spec.maxSequences }, () => []);
  }

  /** Bytes that the pool would take in its own type. */
  get byteLength(): number {
    return this.#values.length * this.#elementBytes;
  }

  /** Bytes that a block of all layers would take. */
  get blockBytes(): number {
    return this.#spec.numLayers * this.#layerBlockLength * this.#elementBytes;
  }

  /** Bytes that the swapped-out blocks would take. */
  get swappedBytes(): number {
    return this.#hostBlocks.size * this.blockBytes;
  }

  get #elementBytes(): number {
    return this.#spec.kvCacheDtype === "f16" ? 2 : 4;
  }

  /** Values of a block in one layer. */
  get #layerBlockLength(): number {
    const { numKvHeads, blockSize, headDim } = this.#spec;
    return 2 * numKvHeads * blockSize * headDim;
  }

  swapOut({ block, hostBlock }: BlockSwap): void {
    this.#hostBlocks.set(hostBlock, this.#readBlock(block));
  }

  /** The host block is empty afterwards. */
  swapIn({ block, hostBlock }: BlockSwap): void {
    const values = this.#hostBlocks.get(hostBlock);
    invariant(values, `Host block ${hostBlock} is swapped in and holds nothing.`);
    this.#hostBlocks.delete(hostBlock);
    this.#writeBlock(block, values);
  }

  /** What the host block holds, if anything, is of no use any more. */
  release(hostBlock: number): void {
    this.#hostBlocks.delete(hostBlock);
  }

  copy({ source, target }: BlockCopy): void {
    this.#writeBlock(target, this.#readBlock(source));
  }

  resetSlot(slot: number): void {
    this.#blockTables[slot] = [];
  }

  setBlock(slot: number, index: number, block: number): void {
    invariant(block < this.#spec.numBlocks, `Block ${block} is not in the KV pool.`);
    this.#blockTables[slot]![index] = block;
  }

  /** The KV slot of a position: block * blockSize + offset in the block. */
  kvSlot(slot: number, position: number): number {
    const { blockSize } = this.#spec;
    const block = this.#blockTables[slot]?.[Math.floor(position / blockSize)];
    invariant(block !== undefined, `Slot ${slot} has no block for position ${position}.`);
    return block * blockSize + (position % blockSize);
  }

  /** Writes one head's K or V of a token. */
  write(layer: number, kvSlot: number, part: "k" | "v", kvHead: number, head: Float64Array): void {
    this.#values.set(head.map(this.#round), this.#at(layer, kvSlot, part, kvHead));
  }

  /** One head's K or V of positions 0..last of a slot. [last + 1][headDim] */
  read(
    layer: number,
    slot: number,
    last: number,
    part: "k" | "v",
    kvHead: number,
  ): readonly Float32Array[] {
    return Array.from({ length: last + 1 }, (_, position) => {
      const at = this.#at(layer, this.kvSlot(slot, position), part, kvHead);
      return this.#values.subarray(at, at + this.#spec.headDim);
    });
  }

  /** [layer][K|V][kvHead][offset in block][headDim] */
  #readBlock(block: number): Float32Array {
    const length = this.#layerBlockLength;
    const values = new Float32Array(this.#spec.numLayers * length);
    for (let layer = 0; layer < this.#spec.numLayers; layer++) {
      const at = this.#blockAt(layer, block);
      values.set(this.#values.subarray(at, at + length), layer * length);
    }
    return values;
  }

  #writeBlock(block: number, values: Float32Array): void {
    const length = this.#layerBlockLength;
    for (let layer = 0; layer < this.#spec.numLayers; layer++) {
      const part = values.subarray(layer * length, (layer + 1) * length);
      this.#values.set(part, this.#blockAt(layer, block));
    }
  }

  #blockAt(layer: number, block: number): number {
    return (layer * this.#spec.numBlocks + block) * this.#layerBlockLength;
  }

  #at(layer: number, kvSlot: number, part: "k" | "v", kvHead: number): number {
    const { numKvHeads, blockSize, headDim } = this.#spec;
    const head = (part === "k" ? 0 : numKvHeads) + kvHead;
    const inBlock = (head * blockSize + (kvSlot % blockSize)) * headDim;
    return this.#blockAt(layer, Math.floor(kvSlot / blockSize)) + inBlock;
  }
}
