/** Weight that older steps keep in the running average: it spans about ten steps. */
const RETENTION = 0.9;

/**
 * What an untried sequence is believed to accept, and how many drafts' worth that belief is: enough to
 * try, and one failure is nearly enough to stop.
 */
const PRIOR_ACCEPTANCE = 0.5;
const PRIOR_DRAFTS = 1;

/** Steps without drafts before a sequence that rejects them tries one again: doubled by each failure. */
export const FIRST_RETRY_STEPS = 8;
export const LAST_RETRY_STEPS = 64;

/** A draft that would have to be likelier than this to pay is not even tried: hardly any text is so. */
const RETRY_ACCEPTANCE = 0.8;

export interface DraftCosts {
  /** Learned milliseconds of a step: so much, and so much more a row. */
  readonly msPerStep: number;
  readonly msPerRow: number;
  /** Most drafts that could be used. */
  readonly maxDrafts: number;
  /** Rows of the step without these drafts, the sequence's own included. Default 1. */
  readonly numRows?: number;
}

/**
 * How many drafts are worth their rows, for one sequence: learns how likely a draft is accepted when those
 * before it were.
 *
 * With acceptance a, draft i yields a token with probability a^i and costs a row. It is worthwhile if that
 * is more tokens a millisecond than the step yields without it: a^i / msPerRow > tokens / ms. That rule,
 * applied draft by draft, maximises the tokens a millisecond of the whole step. Where not even one draft
 * is worthwhile the sequence drafts no more, except for a single one now and then, at least
 * FIRST_RETRY_STEPS and at most LAST_RETRY_STEPS steps after the last; and none at all where rows are so
 * dear that only a near certain draft would pay.
 */
export class DraftControl {
  #accepted = PRIOR_ACCEPTANCE * PRIOR_DRAFTS;
  #judged = PRIOR_DRAFTS;
  /** Steps since the last record for which no draft was worthwhile. */
  #stepsOff = 0;
  #retrySteps = FIRST_RETRY_STEPS;

  /** Learned probability that a draft is accepted, if those before it in its step were. */
  get acceptance(): number {
    return this.#accepted / this.#judged;
  }

  /** A step is over that held `numDrafts` drafts of the sequence. Steps without any need no call. */
  record(numDrafts: number, numAccepted: number): void {
    if (numDrafts === 0) return;
    // Drafts behind the first rejected one were never judged.
    const judged = Math.min(numAccepted + 1, numDrafts);
    this.#accepted = RETENTION * this.#accepted + numAccepted;
    this.#judged = RETENTION * this.#judged + judged;
    if (numAccepted > 0) this.#retrySteps = FIRST_RETRY_STEPS;
    else if (this.#stepsOff > 0) {
      this.#retrySteps = Math.min(2 * this.#retrySteps, LAST_RETRY_STEPS);
    }
    this.#stepsOff = 0;
  }

  /**
   * Drafts to propose in the coming step, 0..maxDrafts. To be asked once a step. A retry stays open until
   * `record` tells how it ended, because there may be nothing to propose.
   */
  draftsWorthwhile(costs: DraftCosts): number {
    const { maxDrafts } = costs;
    const numDrafts = countWorthwhile(costs, this.acceptance);
    if (numDrafts > 0 || maxDrafts <= 0) return numDrafts;
    if (countWorthwhile(costs, RETRY_ACCEPTANCE) === 0) return 0;
    this.#stepsOff += 1;
    return this.#stepsOff > this.#retrySteps ? 1 : 0;
  }
}

function countWorthwhile(costs: DraftCosts, acceptance: number): number {
  const { msPerStep, msPerRow, maxDrafts, numRows = 1 } = costs;
  let tokens = numRows;
  let ms = msPerStep + numRows * msPerRow;
  let probability = acceptance;
  for (let i = 0; i < maxDrafts; i++) {
    // Before anything is measured, ms and msPerRow are 0 and drafts are free.
    if (msPerRow > 0 && probability * ms <= msPerRow * tokens) return i;
    tokens += probability;
    ms += msPerRow;
    probability *= acceptance;
  }
  return Math.max(0, maxDrafts);
}
