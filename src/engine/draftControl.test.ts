import { describe, expect, it } from "vitest";
import {
  DraftControl,
  type DraftCosts,
  FIRST_RETRY_STEPS,
  LAST_RETRY_STEPS,
} from "./draftControl.ts";

/** A GPU: the step is dear, its rows are not. */
const CHEAP_ROWS = { msPerStep: 10, msPerRow: 0.5, maxDrafts: 8 };

/** Records steps of `k` drafts, each accepted with probability `acceptance` after those before it. */
function teach(control: DraftControl, acceptance: number, k: number, steps: number): void {
  let state = 1;
  for (let step = 0; step < steps; step++) {
    let accepted = 0;
    while (accepted < k) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      if (state / 2 ** 32 >= acceptance) break;
      accepted += 1;
    }
    control.record(k, accepted);
  }
}

function taught(acceptance: number): DraftControl {
  const control = new DraftControl();
  teach(control, acceptance, 4, 400);
  return control;
}

/** Tokens a millisecond with k drafts, straight from the definition. */
function rate(costs: DraftCosts, acceptance: number, k: number): number {
  const { msPerStep, msPerRow, numRows = 1 } = costs;
  let tokens = numRows;
  for (let i = 1; i <= k; i++) tokens += acceptance ** i;
  return tokens / (msPerStep + (numRows + k) * msPerRow);
}

describe("DraftControl", () => {
  it("learns how likely a draft is accepted after those before it", () => {
    for (const acceptance of [0.1, 0.5, 0.9]) {
      let sum = 0;
      const control = new DraftControl();
      for (let i = 0; i < 200; i++) {
        teach(control, acceptance, 4, 1 + (i % 7));
        if (i >= 50) sum += control.acceptance / 150;
      }
      expect(Math.abs(sum - acceptance)).toBeLessThan(0.12);
    }
    expect(taught(0).acceptance).toBeLessThan(0.01);
    expect(taught(1).acceptance).toBeGreaterThan(0.99);
  });

  it("does not count drafts behind a rejected one against it", () => {
    const control = new DraftControl();
    for (let i = 0; i < 100; i++) control.record(10, 4);
    // Four of five judged drafts were accepted, although six of ten were not.
    expect(control.acceptance).toBeCloseTo(0.8, 3);
  });

  it("forgets: a text that turns to copying is seen within some ten steps", () => {
    const control = taught(0);
    for (let i = 0; i < 12; i++) control.record(4, 4);
    expect(control.acceptance).toBeGreaterThan(0.8);
  });

  it("proposes the number of drafts with the most tokens a millisecond", () => {
    let numBetween = 0;
    for (const msPerRow of [0.1, 0.5, 1, 2, 4, 8]) {
      for (const numRows of [1, 2, 8, 32]) {
        for (const fraction of [1, 2, 3, 5, 8, 13, 21, 34]) {
          const costs = { msPerStep: 10, msPerRow, maxDrafts: 8, numRows };
          const control = new DraftControl();
          for (let i = 0; i < 300; i++) control.record(fraction + 1, fraction);
          const rates = Array.from({ length: 9 }, (_, k) => rate(costs, control.acceptance, k));
          const best = rates.indexOf(Math.max(...rates));
          expect(control.draftsWorthwhile(costs)).toBe(best);
          if (best > 0 && best < 8) numBetween += 1;
        }
      }
    }
    expect(numBetween).toBeGreaterThan(20);
  });

  it("drafts all it may while nothing is known of costs, or where rows are free", () => {
    const control = new DraftControl();
    expect(control.draftsWorthwhile({ msPerStep: 0, msPerRow: 0, maxDrafts: 5 })).toBe(5);
    expect(control.draftsWorthwhile({ msPerStep: 10, msPerRow: 0, maxDrafts: 5 })).toBe(5);
    expect(control.draftsWorthwhile({ ...CHEAP_ROWS, maxDrafts: 0 })).toBe(0);
  });

  it("tries a new sequence where rows are cheap", () => {
    expect(new DraftControl().draftsWorthwhile(CHEAP_ROWS)).toBeGreaterThan(1);
  });

  it("drafts less beside many rows than alone", () => {
    const alone = taught(0.6).draftsWorthwhile(CHEAP_ROWS);
    const crowded = taught(0.6).draftsWorthwhile({ ...CHEAP_ROWS, numRows: 60 });
    expect(crowded).toBeLessThan(alone);
    expect(crowded).toBe(0);
  });

  it("switches itself off where drafts are rejected, and retries ever less often, one draft at a time", () => {
    const control = new DraftControl();
    const numSteps = 1_000;
    const tries: number[] = [];
    let numDrafts = 0;
    for (let step = 0; step < numSteps; step++) {
      const k = control.draftsWorthwhile(CHEAP_ROWS);
      if (k === 0) continue;
      tries.push(step);
      numDrafts += k;
      control.record(k, 0);
    }
    const gaps = tries.slice(1).map((step, i) => step - tries[i]!);
    expect(gaps.at(-1)).toBe(LAST_RETRY_STEPS + 1);
    expect(gaps).toContain(FIRST_RETRY_STEPS + 1);
    expect(Math.max(...gaps)).toBe(LAST_RETRY_STEPS + 1);
    // A bounded loss: what it took to learn, then one row in LAST_RETRY_STEPS steps.
    expect(numDrafts).toBeLessThan(50);
  });

  it("comes back when drafts are accepted again", () => {
    const control = taught(0);
    let step = 0;
    for (; step <= LAST_RETRY_STEPS; step++) {
      const k = control.draftsWorthwhile(CHEAP_ROWS);
      if (k > 0) control.record(k, k);
      if (k > 1) break;
    }
    expect(step).toBeLessThan(LAST_RETRY_STEPS);
  });

  it("retries early again once drafts were accepted", () => {
    const control = new DraftControl();
    const stepsUntilRetry = () => {
      let steps = 1;
      while (control.draftsWorthwhile(CHEAP_ROWS) === 0) steps += 1;
      return steps;
    };
    teach(control, 0, 4, 20);
    for (let i = 0; i < 5; i++) {
      stepsUntilRetry();
      control.record(1, 0);
    }
    expect(stepsUntilRetry()).toBe(LAST_RETRY_STEPS + 1);
    control.record(1, 1);
    teach(control, 0, 4, 40);
    expect(stepsUntilRetry()).toBe(FIRST_RETRY_STEPS + 1);
  });

  it("keeps a retry open until it is used", () => {
    const control = taught(0);
    const answers = Array.from({ length: 20 }, () => control.draftsWorthwhile(CHEAP_ROWS));
    expect(answers).toEqual([...Array(8).fill(0), ...Array(12).fill(1)]);
    control.record(0, 0); // nothing to propose: the retry has not happened
    expect(control.draftsWorthwhile(CHEAP_ROWS)).toBe(1);
    control.record(1, 0);
    expect(control.draftsWorthwhile(CHEAP_ROWS)).toBe(0);
  });

  it("does not even retry where rows cost what steps cost", () => {
    const control = new DraftControl();
    const costs = { msPerStep: 0.5, msPerRow: 12, maxDrafts: 8 };
    for (let step = 0; step < 200; step++) expect(control.draftsWorthwhile(costs)).toBe(0);
  });
});
