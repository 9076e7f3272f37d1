import { invariant } from "../errors.ts";

/** Where a sequence's K and V are while it waits: in host memory. */
export interface SwappedBlocks {
  readonly hostBlocks: HostBlocks;
  /** Host block of each block of the table that held computed tokens. */
  readonly blocks: readonly number[];
  /** Tokens whose K and V they hold. */
  readonly numComputedTokens: number;
  /** The step that swaps out: only a step that is submitted after its result may swap in. */
  readonly stepId: number;
}

/**
 * Blocks of the host tier. What is released in a step is given out from the next step on, so that no
 * host block goes out and in in one step.
 */
export class HostBlocks {
  readonly numBlocks: number;
  readonly #free: number[]; // a stack
  readonly #isFree: Uint8Array; // [numBlocks]
  /** Free ones that the back end may hold content for, still. */
  readonly #released = new Set<number>();
  #isClosed = false;
  /** The last of `#free` that were released in step `#stepId`. */
  #numFresh = 0;
  #stepId = 0;

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
    this.#isFree = new Uint8Array(numBlocks).fill(1);
  }

  /** Blocks that no sequence holds. */
  get numFree(): number {
    return this.#free.length;
  }

  /** No block is given out any more; those that are held stay usable. */
  close(): void {
    this.#isClosed = true;
  }

  /** `count` blocks for a swap in step `stepId`; undefined, and nothing changed, if there are not so many. */
  allocate(count: number, stepId: number): number[] | undefined {
    if (this.#isClosed) return undefined;
    const numFresh = this.#freshIn(stepId);
    const end = this.#free.length - numFresh;
    if (count > end) return undefined;
    const blocks = this.#free.splice(end - count, count).reverse();
    for (const block of blocks) {
      this.#isFree[block] = 0;
      this.#released.delete(block);
    }
    return blocks;
  }

  release(blocks: readonly number[], stepId: number): void {
    this.#numFresh = this.#freshIn(stepId) + blocks.length;
    this.#stepId = stepId;
    for (const block of blocks) {
      invariant(this.#isFree[block] === 0, `Host block ${block} is released but nobody holds it.`);
      this.#isFree[block] = 1;
      this.#free.push(block);
      this.#released.add(block);
    }
  }

  /** Blocks that were released since this was last asked, and not given out again. */
  takeReleased(): readonly number[] {
    const released = [...this.#released];
    this.#released.clear();
    return released;
  }

  /** Throws `internal` unless the free blocks and those of `sequences` (all that are swapped out) are all there are. */
  checkIntegrity(sequences: Iterable<{ readonly swapped: SwappedBlocks | undefined }>): void {
    const counts = new Int32Array(this.numBlocks);
    for (const block of this.#free) counts[block]! += 1;
    for (const { swapped } of sequences) {
      if (swapped?.hostBlocks !== this) continue;
      for (const block of swapped.blocks) counts[block]! += 1;
    }
    for (const [block, count] of counts.entries()) {
      invariant(count === 1, `Host block ${block} is listed or held ${count} times.`);
    }
  }

  #freshIn(stepId: number): number {
    return stepId === this.#stepId ? this.#numFresh : 0;
  }
}
