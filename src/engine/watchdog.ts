import type { RequestId } from "./sequence.ts";

/** What a watchdog watches: sequences. */
export interface Watched {
  readonly requestId: RequestId;
  readonly index: number;
  /** When it was added or last got on; the watchdog alone writes it after that. */
  lastProgressMs: number;
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
  #lastLookMs: number;

  /** `now` gives milliseconds of any monotonic clock; without progress for `stallMs` a sequence stalls. */
  constructor(options: { readonly now: () => number; readonly stallMs: number }) {
    this.#now = options.now;
    this.#stallMs = options.stallMs;
    this.#lastLookMs = options.now();
  }

  /** True if nobody looked for `stallMs`. Looking then and only then names a stall once every `stallMs`. */
  get isDue(): boolean {
    return this.#now() - this.#lastLookMs >= this.#stallMs;
  }

  /** The sequence got on: a row, a token, or its arrival. */
  progress(sequence: Watched): void {
    sequence.lastProgressMs = this.#now();
  }

  /** Those of `sequences` that stall, longest first. */
  stalled(sequences: Iterable<Watched>): Stall[] {
    const now = this.#now();
    this.#lastLookMs = now;
    const stalls: Stall[] = [];
    for (const { requestId, index, lastProgressMs } of sequences) {
      const waitedMs = now - lastProgressMs;
      if (waitedMs >= this.#stallMs) stalls.push({ requestId, index, waitedMs });
    }
    return stalls.sort((a, b) => b.waitedMs - a.waitedMs);
  }
}
