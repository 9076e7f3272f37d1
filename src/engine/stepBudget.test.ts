import { describe, expect, it } from "vitest";
import { MIN_PREFILL_ROWS, StepBudget } from "./stepBudget.ts";

interface Machine {
  readonly fixedMs: number;
  readonly rowMs: number;
}

/** Runs prompt-only steps on a machine of linear cost and returns the rows of each. */
function prefill(budget: StepBudget, machine: Machine, steps: number, decodeRows = 0): number[] {
  return Array.from({ length: steps }, () => {
    const rows = decodeRows + budget.prefillRows(decodeRows);
    budget.record(rows, machine.fixedMs + rows * machine.rowMs);
    return rows;
  });
}

describe("StepBudget", () => {
  it("starts at the floor and doubles while there is time", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    expect(prefill(budget, { fixedMs: 0, rowMs: 0.001 }, 7)).toEqual([
      16, 32, 64, 128, 256, 512, 512,
    ]);
  });

  it("settles near the budget on a machine with a fixed cost and a cost per row", () => {
    const machine = { fixedMs: 10, rowMs: 0.25 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 1000 });
    budget.record(1, machine.fixedMs + machine.rowMs);
    const rows = prefill(budget, machine, 12);
    expect(budget.msPerRow).toBeCloseTo(0.25);
    expect(budget.msPerStep).toBeCloseTo(10);
    expect(rows.at(-1)).toBe(160);
    expect(Math.max(...rows)).toBe(160);
  });

  it("without small steps it counts the fixed cost to the rows and stays below the budget", () => {
    const machine = { fixedMs: 10, rowMs: 0.25 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 1000 });
    const rows = prefill(budget, machine, 40);
    expect(Math.max(...rows)).toBeLessThanOrEqual(160);
    expect(rows.at(-1)).toBeGreaterThan(100);
  });

  it("keeps prompts moving where one row takes longer than the whole budget", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    expect(prefill(budget, { fixedMs: 5, rowMs: 120 }, 5, 3)).toEqual([19, 19, 19, 19, 19]);
  });

  it("takes decode rows off the prompt's share, but never below the floor", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    prefill(budget, { fixedMs: 0, rowMs: 1 }, 20);
    expect(budget.prefillRows(0)).toBe(50);
    expect(budget.prefillRows(10)).toBe(40);
    expect(budget.prefillRows(45)).toBe(MIN_PREFILL_ROWS);
  });

  it("never exceeds the rows of a step", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 8 });
    expect(budget.prefillRows(0)).toBe(8);
    expect(budget.prefillRows(5)).toBe(3);
    expect(budget.prefillRows(8)).toBe(0);
  });

  it("remembers the cost of large steps through a long stretch of decoding", () => {
    const machine = { fixedMs: 4, rowMs: 0.5 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    budget.record(2, machine.fixedMs + 2 * machine.rowMs);
    const before = prefill(budget, machine, 12).at(-1)!;
    for (let i = 0; i < 1000; i++) budget.record(2, machine.fixedMs + 2 * machine.rowMs);
    expect(budget.prefillRows(0)).toBe(before);
  });

  it("forgets one slow step, such as the first that compiles pipelines", () => {
    const machine = { fixedMs: 4, rowMs: 0.5 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    budget.record(16, 3000);
    expect(budget.prefillRows(0)).toBe(MIN_PREFILL_ROWS);
    expect(prefill(budget, machine, 40).at(-1)).toBeGreaterThan(60);
  });

  it("falls back when the machine becomes slower", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    prefill(budget, { fixedMs: 0, rowMs: 0.1 }, 20);
    expect(budget.prefillRows(0)).toBeGreaterThan(400);
    const rows = prefill(budget, { fixedMs: 0, rowMs: 1 }, 20);
    expect(rows.at(-1)).toBeLessThanOrEqual(60);
  });

  it("reports no cost before it has measured one", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    expect([budget.msPerRow, budget.msPerStep]).toEqual([0, 0]);
    budget.record(4, 40);
    expect([budget.msPerRow, budget.msPerStep]).toEqual([10, 0]);
  });

  it("survives a clock that does not move", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 64 });
    expect(prefill(budget, { fixedMs: 0, rowMs: 0 }, 4)).toEqual([16, 32, 64, 64]);
  });
});
