import { invariant } from "../../errors.ts";
import type { PlanSpec } from "../ops.ts";
import { roundToHalf } from "./half.ts";

/** K and V of all layers in blocks, and where each slot's sequence has its blocks. */
export class KvPool {
  readonly #spec: PlanSpec;
  readonly #round: (x: number) => number;
  /** [layer][block][K|V][kvHead][offset in block][headDim] */
  readonly #values: Float32Array;
  /** [slot][index] -> block */
  readonly #blockTables: number[][];

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
    return this.#values.length * (this.#spec.kvCacheDtype === "f16" ? 2 : 4);
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

  #at(layer: number, kvSlot: number, part: "k" | "v", kvHead: number): number {
    const { numBlocks, numKvHeads, blockSize, headDim } = this.#spec;
    const block = Math.floor(kvSlot / blockSize);
    const offset = kvSlot % blockSize;
    const half = part === "k" ? 0 : 1;
    const head = ((layer * numBlocks + block) * 2 + half) * numKvHeads + kvHead;
    return (head * blockSize + offset) * headDim;
  }
}
