/** Prompt rows that a step gets even if it then takes too long: slow adapters must make progress too. */
export const MIN_PREFILL_ROWS = 16;

/** Weight of the newest step in the running averages. */
const LEARNING_RATE = 0.3;

interface StepCost {
  readonly rows: number;
  readonly ms: number;
}

/**
 * How many rows fit a step of so many milliseconds, learned from finished steps.
 *
 * A step costs a fixed part (dispatches, readback) plus a part per row. Two running averages, one of
 * small steps (decoding alone) and one of large ones (with prompt chunks), give a line through two
 * points. An average over any mix of sizes stays on that line, and long decoding never wipes out what
 * was learned about large steps. Rows at most double from one large step to the next, so that a wrong
 * guess is corrected by measurement before it can block the device.
 */
export class StepBudget {
  readonly #budgetMs: number;
  readonly #maxRows: number;
  #small: StepCost | undefined;
  #large: StepCost | undefined;
  #lastLargeRows = 0;

  constructor(options: { readonly budgetMs: number; readonly maxRows: number }) {
    this.#budgetMs = options.budgetMs;
    this.#maxRows = options.maxRows;
  }

  /** Learned milliseconds that one more row adds to a step; 0 before the first step. */
  get msPerRow(): number {
    const { small, large } = { small: this.#small, large: this.#large };
    const known = large ?? small;
    if (known === undefined) return 0;
    // Without a second point, or where noise says more, all of the step counts as cost of its rows.
    const most = known.ms / known.rows;
    if (small === undefined || large === undefined) return most;
    return Math.min(most, Math.max(0, (large.ms - small.ms) / (large.rows - small.rows)));
  }

  /** Learned milliseconds of a step without rows. */
  get msPerStep(): number {
    const known = this.#large ?? this.#small;
    return known === undefined ? 0 : known.ms - known.rows * this.msPerRow;
  }

  /** Prompt rows to add to a step that has `decodeRows` already: at least the floor, within maxRows. */
  prefillRows(decodeRows: number): number {
    const wanted = Math.max(this.#rowsInBudget() - decodeRows, MIN_PREFILL_ROWS);
    return Math.min(wanted, this.#maxRows - decodeRows);
  }

  /** Learns from a finished step. */
  record(rows: number, ms: number): void {
    if (rows < MIN_PREFILL_ROWS) {
      this.#small = average(this.#small, { rows, ms });
    } else {
      this.#large = average(this.#large, { rows, ms });
      this.#lastLargeRows = rows;
    }
  }

  #rowsInBudget(): number {
    if (this.#large === undefined) return MIN_PREFILL_ROWS;
    const growth = 2 * this.#lastLargeRows;
    const { msPerRow } = this;
    if (msPerRow === 0) return growth;
    return Math.min(growth, Math.floor((this.#budgetMs - this.msPerStep) / msPerRow));
  }
}

function average(known: StepCost | undefined, step: StepCost): StepCost {
  if (known === undefined) return step;
  return {
    rows: known.rows + LEARNING_RATE * (step.rows - known.rows),
    ms: known.ms + LEARNING_RATE * (step.ms - known.ms),
  };
}
