/** Until measured, a block moves at this rate one way: what memory can do at best, so that it is tried. */
const ASSUMED_BYTES_PER_MS = 1e7;

/** Weight of the newest measurement. */
const LEARNING_RATE = 0.3;

/** A step that took more than so many times the expected counts as so many times: the machine was asleep or busy. */
const MAX_SURPRISE = 4;

/** How far a preemption without a swap leads back to the assumption: one bad measurement must not last. */
const FORGETTING_RATE = 0.05;

/** Whether a victim's K and V should wait in host memory or be computed again, by measured cost. */
export class SwapPolicy {
  readonly #assumedMsPerBlock: number;
  #msPerBlock: number;

  constructor(blockBytes: number) {
    this.#assumedMsPerBlock = blockBytes / ASSUMED_BYTES_PER_MS;
    this.#msPerBlock = this.#assumedMsPerBlock;
  }

  /** Milliseconds that a block costs a step, one way. */
  get msPerBlock(): number {
    return this.#msPerBlock;
  }

  /** What moving `numBlocks` out and in again costs, in rows of `msPerRow`; Infinity until rows are measured. */
  costInRows(numBlocks: number, msPerRow: number): number {
    return msPerRow === 0
      ? Number.POSITIVE_INFINITY
      : (2 * numBlocks * this.#msPerBlock) / msPerRow;
  }

  /** Learns from a step that moved `numBlocks` and took `stepMs`, of which its rows explain `rowsMs`. */
  record(numBlocks: number, stepMs: number, rowsMs: number): void {
    const expectedMs = rowsMs + numBlocks * this.#msPerBlock;
    const extraMs = Math.min(stepMs, MAX_SURPRISE * expectedMs) - rowsMs;
    const measured = Math.max(0, extraMs) / numBlocks;
    this.#msPerBlock += LEARNING_RATE * (measured - this.#msPerBlock);
  }

  /** A victim was not swapped: nothing was measured. */
  forget(): void {
    this.#msPerBlock += FORGETTING_RATE * (this.#assumedMsPerBlock - this.#msPerBlock);
  }
}
