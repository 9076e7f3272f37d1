import type { Step, StepExecutor, StepHandle } from "../step.ts";

/** What steps cost a simulated back end, and the clock that they move. */
export interface Timing {
  /** Milliseconds that the device works on a step. */
  readonly stepMs: (step: Step) => number;
  /** Milliseconds from a step's end until its result is here. The device works on meanwhile. */
  readonly latencyMs: number;
}

/**
 * A back end that takes simulated time: steps run one after the other, each result comes `latencyMs` after
 * its step's end and moves the clock there. Results come in turns of the event loop of their own, so that
 * the engine sees the clock of the result that it waits for and not of a later one.
 */
export class TimedExecutor implements StepExecutor {
  readonly #inner: StepExecutor;
  readonly #timing: Timing;
  readonly #clock: { clockMs: number };
  #idleFromMs = 0;
  #lastDelivery: Promise<void> = Promise.resolve();

  constructor(inner: StepExecutor, timing: Timing, clock: { clockMs: number }) {
    this.#inner = inner;
    this.#timing = timing;
    this.#clock = clock;
  }

  get maxStepsInFlight(): number {
    return this.#inner.maxStepsInFlight ?? 1;
  }

  submit(step: Step): StepHandle {
    const startMs = Math.max(this.#clock.clockMs, this.#idleFromMs);
    this.#idleFromMs = startMs + this.#timing.stepMs(step);
    const dueMs = this.#idleFromMs + this.#timing.latencyMs;
    const { result } = this.#inner.submit(step);
    result.catch(() => {}); // it is passed on in its turn
    const turn = this.#lastDelivery
      .then(() => new Promise<void>((resolve) => setImmediate(resolve)))
      .then(() => {
        this.#clock.clockMs = Math.max(this.#clock.clockMs, dueMs);
      });
    this.#lastDelivery = turn;
    return { result: turn.then(() => result) };
  }
}
