import type { RequestId } from "./sequence.ts";

/** What a watchdog watches: sequences. */
export interface Watched {
  readonly requestId: RequestId;
  readonly index: number;
  /** When it was added or last got on. */
  readonly lastProgressMs: number;
}

/** A sequence that has not got on for too long. */
export interface Stall {
  readonly requestId: RequestId;
  readonly index: number;
  readonly waitedMs: number;
}

/**
 * Names who makes no progress. It keeps no list: progress is a field of the sequence, and the caller
 * decides who is due to get on, such as residents and the head of the queue.
 */
export class Watchdog {
  readonly #now: () => number;
  readonly #stallMs: number;
  #lastTurnMs: number;

  /** `now` gives milliseconds of any monotonic clock; without progress for `stallMs` a sequence stalls. */
  constructor(options: { readonly now: () => number; readonly stallMs: number }) {
    this.#now = options.now;
    this.#stallMs = options.stallMs;
    this.#lastTurnMs = options.now();
  }

  /** True once every `stallMs`: who reports stalls then, and only then, names each once in that time. */
  takeTurn(): boolean {
    const now = this.#now();
    if (now - this.#lastTurnMs < this.#stallMs) return false;
    this.#lastTurnMs = now;
    return true;
  }

  /** Those of `sequences` that stall, longest first. */
  stalled(sequences: Iterable<Watched>): Stall[] {
    const now = this.#now();
    const stalls: Stall[] = [];
    for (const { requestId, index, lastProgressMs } of sequences) {
      const waitedMs = now - lastProgressMs;
      if (waitedMs >= this.#stallMs) stalls.push({ requestId, index, waitedMs });
    }
    return stalls.sort((a, b) => b.waitedMs - a.waitedMs);
  }
}
