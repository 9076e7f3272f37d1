/** Prompt rows that a step gets even if it then takes too long: slow adapters must make progress too. */
export const MIN_PREFILL_ROWS = 16;

/**
 * Those rows are fewer, down to FEWEST_ROWS, where the latest step says that they would take longer than this: a
 * driver that gets no answer for some two seconds takes the device away. Half of that, as a guess may be wrong.
 */
export const MAX_FLOOR_MS = 1000;

/** Prompt rows of a back end's first step, of which nothing is known, and of any later one: a kernel's tile. */
export const FEWEST_ROWS = 4;

/**
 * Attending to so many positions is taken to cost as much as the rest of a row. Measured in WebAssembly
 * (README: 2.9 ms a row, 3 us a position); large models need fewer rows' worth for the same positions.
 */
export const POSITIONS_PER_ROW = 1024;

/**
 * A step that took so many times less than expected ends all beliefs before it: no step takes less than its
 * work needs, and what came before it were slow ones, of a machine that was asleep, busy or not warm yet.
 */
const MAX_SURPRISE = 4;

/** Rows are at least this part of what large steps cost: else a busy machine's small steps make them seem free. */
const MIN_ROWS_SHARE = 1 / 16;

/** Weight of the newest step in the running averages. */
const LEARNING_RATE = 0.3;

/** What a step computes. */
export interface StepLoad {
  readonly rows: number;
  /** That its rows attend to, all together. */
  readonly positions: number;
}

interface StepCost {
  /** In rows, with what they attend to. */
  readonly work: number;
  readonly ms: number;
}

/**
 * How many rows fit a step of so many milliseconds, learned from finished steps.
 *
 * A step costs a fixed part (dispatches, readback) plus a part per row, which is dearer the more positions
 * the row attends to. Two running averages, one of small steps (decoding alone) and one of large ones
 * (with prompt chunks), give a line through two points. An average over any mix of sizes stays on that
 * line, and long decoding never wipes out what was learned about large steps. Rows at most double from one
 * large step to the next, so that a wrong guess is corrected by measurement before it can block the device.
 */
export class StepBudget {
  readonly #budgetMs: number;
  readonly #maxRows: number;
  #small: StepCost | undefined;
  #large: StepCost | undefined;
  #latest: StepCost | undefined;
  /** Until a step has had MIN_PREFILL_ROWS, the one with most rows counts as large. */
  #lastLargeRows = 0;

  constructor(options: { readonly budgetMs: number; readonly maxRows: number }) {
    this.#budgetMs = options.budgetMs;
    this.#maxRows = options.maxRows;
  }

  /** Learned milliseconds that one more row at a sequence's start adds to a step; 0 before the first step. */
  get msPerRow(): number {
    return this.#line().msPerRow;
  }

  /** Learned milliseconds of a step without rows. */
  get msPerStep(): number {
    return this.#line().msPerStep;
  }

  /** What a step is expected to take; 0 before the first. */
  msOf(load: StepLoad): number {
    const { msPerStep, msPerRow } = this.#line();
    return msPerStep + workOf(load) * msPerRow;
  }

  /**
   * Prompt rows, from position `depth` of their sequence on, to add to a step that has `load` already:
   * within maxRows as many as fit the budget, or the floor, which `promptRows` of the step are part of.
   */
  prefillRows(load: StepLoad, depth = 0, promptRows = 0): number {
    const used = workOf(load);
    const { msPerStep, msPerRow } = this.#line();
    const inBudget = rowsOf((this.#budgetMs - msPerStep) / msPerRow - used, depth);
    const floor = Math.min(MIN_PREFILL_ROWS - promptRows, this.#rowsAtFloor(used, depth));
    const growth = Math.max(FEWEST_ROWS, 2 * this.#lastLargeRows - load.rows);
    const wanted = Math.min(Math.max(inBudget, floor, FEWEST_ROWS - promptRows), growth);
    return Math.max(0, Math.min(wanted, this.#maxRows - load.rows));
  }

  /** Learns from a finished step. */
  record(load: StepLoad, ms: number): void {
    const { rows } = load;
    const step = { work: workOf(load), ms };
    const isCheap = MAX_SURPRISE * ms < this.msOf(load);
    const lastLargeRows = this.#lastLargeRows;
    this.#latest = step;
    if (rows < MIN_PREFILL_ROWS && rows <= lastLargeRows) {
      this.#small = isCheap ? step : average(this.#small, step);
      return;
    }
    this.#lastLargeRows = rows;
    if (lastLargeRows < MIN_PREFILL_ROWS) {
      this.#small = this.#large ?? this.#small;
      this.#large = step;
    } else {
      this.#large = isCheap ? step : average(this.#large, step);
    }
    const { small, large } = { small: this.#small, large: this.#large };
    // Small steps were slow for another reason; the next one tells anew what they cost.
    if (small && small.work < large.work && small.ms > large.ms) this.#small = undefined;
  }

  /** Another back end runs the steps from now on: nothing is known of it. */
  reset(): void {
    this.#small = undefined;
    this.#large = undefined;
    this.#latest = undefined;
    this.#lastLargeRows = 0;
  }

  /**
   * Through both points. All of a step counts as cost of its rows where there is one point, or noise says
   * more, and MIN_ROWS_SHARE of it where noise says less. Less work never counts as dearer.
   */
  #line(): { readonly msPerStep: number; readonly msPerRow: number } {
    const one = this.#small ?? this.#large;
    const other = this.#large ?? this.#small;
    if (one === undefined || other === undefined) return { msPerStep: 0, msPerRow: 0 };
    const [less, more] = one.work < other.work ? [one, other] : [other, one];
    const ms = Math.max(less.ms, more.ms);
    const most = ms / more.work;
    const slope = less.work < more.work ? (ms - less.ms) / (more.work - less.work) : most;
    const msPerRow = Math.min(most, Math.max(slope, MIN_ROWS_SHARE * most));
    return { msPerStep: ms - more.work * msPerRow, msPerRow };
  }

  /** By the latest step alone, which no old belief can hold down, and all of it as cost of its rows. */
  #rowsAtFloor(used: number, depth: number): number {
    if (this.#latest === undefined) return FEWEST_ROWS;
    const { work, ms } = this.#latest;
    return rowsOf((MAX_FLOOR_MS * work) / ms - used, depth);
  }
}

/** What rows cost, in rows at the start of a sequence. */
function workOf({ rows, positions }: StepLoad): number {
  return rows + positions / POSITIONS_PER_ROW;
}

/** Rows from position `depth` on that are so much work: `n` of them attend to n * (depth + n / 2) positions. */
function rowsOf(work: number, depth: number): number {
  if (!(work > 0)) return 0;
  const most = Math.min(work, Number.MAX_SAFE_INTEGER);
  const first = 1 + depth / POSITIONS_PER_ROW;
  const root = Math.sqrt(first ** 2 + (2 * most) / POSITIONS_PER_ROW);
  return Math.floor((2 * most) / (first + root));
}

function average(known: StepCost | undefined, step: StepCost): StepCost {
  if (known === undefined) return step;
  return {
    work: known.work + LEARNING_RATE * (step.work - known.work),
    ms: known.ms + LEARNING_RATE * (step.ms - known.ms),
  };
}
