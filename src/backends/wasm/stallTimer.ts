import { QuireError } from "../../errors.ts";

/** A chunk takes milliseconds: a thread that holds one this long is dead. */
const STALL_TIMEOUT_MS = 10_000;
/** Looks are a millisecond apart, or some where the system is busy. */
const MAX_LOOK_MS = 100;

/**
 * How long others have held up this thread. Between two looks no more than MAX_LOOK_MS count: while the
 * computer slept, or the process was frozen, the others could not get on either.
 */
export class StallTimer {
  #waitedMs = 0;
  #lastLookMs = performance.now();

  /** Call it when another look shows that they are not done. Throws `worker-failed` if they are dead. */
  look(): void {
    const nowMs = performance.now();
    this.#waitedMs += Math.min(nowMs - this.#lastLookMs, MAX_LOOK_MS);
    this.#lastLookMs = nowMs;
    if (this.#waitedMs <= STALL_TIMEOUT_MS) return;
    throw new QuireError(
      "worker-failed",
      `A thread of the WASM back end did not finish its part of a step within ${STALL_TIMEOUT_MS} ms: it has died or is not scheduled. Create the engine anew, with fewer threads if it happens again.`,
      { timeoutMs: STALL_TIMEOUT_MS },
    );
  }
}
