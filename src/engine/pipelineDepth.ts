/** Steps of a trial, with each of the two depths that are compared. */
const TRIAL_STEPS = 16;

/** A deeper pipeline must shorten the time between steps by this share: it delays stops and newcomers. */
const WORTHWHILE_GAIN = 0.05;

/** Trials whose steps differ more than this in rows compare nothing. */
const MAX_ROWS_RATIO = 1.1;

interface Trial {
  steps: number;
  ms: number;
  rows: number;
}

/**
 * How many steps to have in flight, learned from the time between results. One more hides the time that
 * results take to come back; more than that only lengthens the queue.
 *
 * Alternates between the present depth and a neighbour, and moves where the comparison says so.
 */
export class PipelineDepth {
  readonly #most: number;
  #base = 1;
  #tried = 1;
  #direction = 1;
  #baseTrial = emptyTrial();
  #triedTrial = emptyTrial();

  /** `most`: steps that the back end can have in flight. */
  constructor(most: number) {
    this.#most = most;
    this.#nextTrial();
  }

  /** Steps to have in flight now. */
  get depth(): number {
    return this.#baseTrial.steps < TRIAL_STEPS ? this.#base : this.#tried;
  }

  /** A step of `rows` rows gave its result `ms` after the one before, or after its submission if that was later. */
  record(rows: number, ms: number): void {
    if (this.#most === 1) return;
    const trial = this.#baseTrial.steps < TRIAL_STEPS ? this.#baseTrial : this.#triedTrial;
    trial.steps += 1;
    trial.ms += ms;
    trial.rows += rows;
    if (this.#triedTrial.steps < TRIAL_STEPS) return;
    const { ms: baseMs, rows: baseRows } = this.#baseTrial;
    const { ms: triedMs, rows: triedRows } = this.#triedTrial;
    const ratio = Math.max(baseRows, triedRows) / Math.min(baseRows, triedRows);
    if (ratio <= MAX_ROWS_RATIO) {
      const deeper = this.#tried > this.#base;
      const isBetter = deeper
        ? triedMs < (1 - WORTHWHILE_GAIN) * baseMs
        : (1 - WORTHWHILE_GAIN) * triedMs <= baseMs;
      if (isBetter) this.#base = this.#tried;
      else this.#direction = -this.#direction;
    }
    this.#nextTrial();
  }

  #nextTrial(): void {
    const isInside = (depth: number) => depth >= 1 && depth <= this.#most;
    if (!isInside(this.#base + this.#direction)) this.#direction = -this.#direction;
    const tried = this.#base + this.#direction;
    this.#tried = isInside(tried) ? tried : this.#base;
    this.#baseTrial = emptyTrial();
    this.#triedTrial = emptyTrial();
  }
}

function emptyTrial(): Trial {
  return { steps: 0, ms: 0, rows: 0 };
}
