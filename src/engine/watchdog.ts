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

/** Turns within the time that makes a stall. */
const TURNS_PER_STALL = 4;

/**
 * Names who makes no progress. It keeps no list: progress is a field of the sequence, and the caller
 * decides who is due to get on, such as residents and the head of the queue.
 */
export class Watchdog {
  readonly #now: () => number;
  readonly #stallMs: number;
  #lastTurnMs: number;
  #lastReportMs: number;
  /** Waits before are forgiven. */
  #awakeSinceMs: number;

  /** `now` gives milliseconds of any monotonic clock; without progress for `stallMs` a sequence stalls. */
  constructor(options: { readonly now: () => number; readonly stallMs: number }) {
    this.#now = options.now;
    this.#stallMs = options.stallMs;
    this.#lastTurnMs = this.#lastReportMs = this.#awakeSinceMs = options.now();
  }

  /** Longest time between two turns while somebody waits. */
  get turnMs(): number {
    return this.#stallMs / TURNS_PER_STALL;
  }

  /**
   * To be called every `turnMs`, or more often. True once every `stallMs`: who reports stalls then, and
   * only then, names each once in that time. Where two turns were missed the machine slept, and nobody
   * is to blame for that.
   */
  takeTurn(): boolean {
    const now = this.#now();
    if (now - this.#lastTurnMs > 2 * this.turnMs) this.#awakeSinceMs = now;
    this.#lastTurnMs = now;
    if (now - this.#lastReportMs < this.#stallMs) return false;
    this.#lastReportMs = now;
    return true;
  }

  /** Those of `sequences` that stall, longest first. */
  stalled(sequences: Iterable<Watched>): Stall[] {
    const now = this.#now();
    const stalls: Stall[] = [];
    for (const { requestId, index, lastProgressMs } of sequences) {
      const waitedMs = now - Math.max(lastProgressMs, this.#awakeSinceMs);
      if (waitedMs >= this.#stallMs) stalls.push({ requestId, index, waitedMs });
    }
    return stalls.sort((a, b) => b.waitedMs - a.waitedMs);
  }
}
