import type { OutputEstimate } from "./outputEstimate.ts";
import type { Sequence } from "./sequence.ts";

/** How much of the expected growth is kept free at first, and the most it comes to. */
const FIRST_RATIO = 0.1;
const MAX_RATIO = 1;

/** A step keeps so much of the ratio, and adds so much for each step's worth of time that was lost. */
const RETENTION = 0.95;
const RAISE = 0.014;

/**
 * Blocks to keep free when a sequence is admitted, so that those who run can grow. The running sequences'
 * remaining outputs are estimated from what was seen before; as they end one after the other, their blocks
 * come back. The worst moment on that way is the reserve, times a ratio that preemptions raise by what they
 * cost, and quiet steps lower (after SGLang's `new_token_ratio`): a full pool is worth a cheap preemption
 * now and then, and where blocks are swapped for next to nothing, it is worth many.
 */
export class Admission {
  readonly #blockSize: number;
  readonly #estimate: OutputEstimate;
  #ratio = FIRST_RATIO;

  constructor(blockSize: number, estimate: OutputEstimate) {
    this.#blockSize = blockSize;
    this.#estimate = estimate;
  }

  /** Learns from a step of `stepMs` for which work of `lostMs` was given up. */
  record(lostMs: number, stepMs: number): void {
    const raise = lostMs === 0 ? 0 : (RAISE * lostMs) / stepMs;
    this.#ratio = Math.min(MAX_RATIO, RETENTION * this.#ratio + raise);
  }

  /** Blocks that the `running` will need, at worst, before enough of them have ended. */
  reserveBlocks(running: Iterable<Sequence>): number {
    const lives: { readonly tokens: number; readonly blocks: number }[] = [];
    for (const { numOutputTokens, maxTokens, session, blockTable } of running) {
      const tokens = this.#estimate.remaining(Math.max(0, numOutputTokens), maxTokens, session);
      lives.push({ tokens, blocks: blockTable.length });
    }
    lives.sort((a, b) => a.tokens - b.tokens);
    let returned = 0;
    let worst = 0;
    for (const [i, { tokens, blocks }] of lives.entries()) {
      const grown = ((lives.length - i) * tokens) / this.#blockSize;
      worst = Math.max(worst, grown - returned);
      returned += blocks; // what it grew itself is not counted in `grown` any more
    }
    return Math.floor(this.#ratio * worst);
  }
}
