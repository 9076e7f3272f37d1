import { describe, expect, it } from "vitest";
import {
  FEWEST_ROWS,
  MAX_FLOOR_MS,
  MIN_PREFILL_ROWS,
  POSITIONS_PER_ROW,
  StepBudget,
  type StepLoad,
} from "./stepBudget.ts";

interface Machine {
  readonly fixedMs: number;
  readonly rowMs: number;
  /** Positions that cost as much as a row. Default: what the budget takes them for. */
  readonly positionsPerRow?: number;
}

/** `rows` rows from position `depth` on. */
function rowsAt(rows: number, depth = 0): StepLoad {
  return { rows, positions: rows * depth + (rows * (rows + 1)) / 2 };
}

function add(a: StepLoad, b: StepLoad): StepLoad {
  return { rows: a.rows + b.rows, positions: a.positions + b.positions };
}

function msOf(
  { fixedMs, rowMs, positionsPerRow = POSITIONS_PER_ROW }: Machine,
  { rows, positions }: StepLoad,
): number {
  return fixedMs + rowMs * (rows + positions / positionsPerRow);
}

/** Runs `steps` prompt steps on a machine, beside decoding rows, and returns the rows of each. */
function prefill(
  budget: StepBudget,
  machine: Machine,
  steps: number,
  { decoding = rowsAt(0), depth = 0 } = {},
): number[] {
  return Array.from({ length: steps }, () => {
    const load = add(decoding, rowsAt(budget.prefillRows(decoding, depth), depth));
    budget.record(load, msOf(machine, load));
    return load.rows;
  });
}

function decode(budget: StepBudget, machine: Machine, rows: number, steps = 1): void {
  for (let i = 0; i < steps; i++) budget.record(rowsAt(rows), msOf(machine, rowsAt(rows)));
}

describe("StepBudget", () => {
  it("starts with few rows and doubles while there is time", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    expect(prefill(budget, { fixedMs: 0, rowMs: 0.001 }, 9)).toEqual([
      4, 8, 16, 32, 64, 128, 256, 512, 512,
    ]);
  });

  it("settles near the budget on a machine with a fixed cost and a cost per row", () => {
    const machine = { fixedMs: 10, rowMs: 0.25 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 1000 });
    const rows = prefill(budget, machine, 12);
    expect(budget.msPerRow).toBeCloseTo(0.25);
    expect(budget.msPerStep).toBeCloseTo(10);
    // 160 rows' worth, and each row attends to those before it.
    expect(rows.at(-1)).toBe(149);
    expect(Math.max(...rows)).toBe(149);
  });

  it("without small steps it counts the fixed cost to the rows and stays below the budget", () => {
    const machine = { fixedMs: 10, rowMs: 0.25 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 1000 });
    budget.record(rowsAt(16), msOf(machine, rowsAt(16)));
    const rows = prefill(budget, machine, 40);
    expect(Math.max(...rows)).toBeLessThanOrEqual(149);
    expect(rows.at(-1)).toBeGreaterThan(100);
  });

  it("keeps prompts moving where few rows take longer than the whole budget", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    const decoding = rowsAt(3);
    expect(prefill(budget, { fixedMs: 5, rowMs: 20 }, 5, { decoding })).toEqual([
      7, 14, 19, 19, 19,
    ]);
  });

  it("takes decode rows off the prompt's share, but never below the floor", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    prefill(budget, { fixedMs: 0, rowMs: 1 }, 20);
    expect(budget.prefillRows(rowsAt(0))).toBe(48);
    expect(budget.prefillRows(rowsAt(10))).toBe(39);
    expect(budget.prefillRows(rowsAt(45))).toBe(MIN_PREFILL_ROWS);
  });

  it("gives a floor once a step, not once a prompt", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    prefill(budget, { fixedMs: 5, rowMs: 20 }, 5);
    expect(budget.prefillRows(rowsAt(10), 0, 10)).toBe(MIN_PREFILL_ROWS - 10);
    expect(budget.prefillRows(rowsAt(16), 0, 16)).toBe(0);
  });

  it("never exceeds the rows of a step", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 8 });
    expect(prefill(budget, { fixedMs: 0, rowMs: 0 }, 3)).toEqual([4, 8, 8]);
    expect(budget.prefillRows(rowsAt(5))).toBe(3);
    expect(budget.prefillRows(rowsAt(8))).toBe(0);
  });

  it("remembers the cost of large steps through a long stretch of decoding", () => {
    const machine = { fixedMs: 4, rowMs: 0.5 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    decode(budget, machine, 2);
    const before = prefill(budget, machine, 12).at(-1)!;
    decode(budget, machine, 2, 1000);
    expect(budget.prefillRows(rowsAt(0))).toBe(before);
  });

  it("falls back when the machine becomes slower", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    prefill(budget, { fixedMs: 0, rowMs: 0.1 }, 20);
    expect(budget.prefillRows(rowsAt(0))).toBeGreaterThan(300);
    const rows = prefill(budget, { fixedMs: 0, rowMs: 1 }, 20);
    expect(rows.at(-1)).toBeLessThanOrEqual(50);
  });

  it("reports no cost before it has measured one", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    expect([budget.msPerRow, budget.msPerStep]).toEqual([0, 0]);
    budget.record({ rows: 4, positions: 0 }, 40);
    expect([budget.msPerRow, budget.msPerStep]).toEqual([10, 0]);
    expect(budget.msOf({ rows: 2, positions: POSITIONS_PER_ROW })).toBe(30);
  });

  it("survives a clock that does not move", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 64 });
    expect(prefill(budget, { fixedMs: 0, rowMs: 0 }, 6)).toEqual([4, 8, 16, 32, 64, 64]);
  });

  it("knows nothing of another back end", () => {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    prefill(budget, { fixedMs: 5, rowMs: 0.1 }, 20);
    budget.reset();
    expect([budget.msPerRow, budget.prefillRows(rowsAt(0))]).toEqual([0, FEWEST_ROWS]);
  });
});

describe("StepBudget after a slow step", () => {
  const MACHINE = { fixedMs: 20, rowMs: 1 };
  const DECODING = rowsAt(4);

  /** Decoding and prompts in turns, for long enough to know the machine. */
  function learned(): { readonly budget: StepBudget; readonly rows: number } {
    const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
    let rows = 0;
    for (let i = 0; i < 30; i++) {
      decode(budget, MACHINE, 4);
      rows = prefill(budget, MACHINE, 1, { decoding: DECODING })[0]!;
    }
    expect(msOf(MACHINE, rowsAt(rows))).toBeCloseTo(50, -1);
    return { budget, rows };
  }

  // A busy moment, a second of another tab's work, and a night's sleep.
  const SLOW = [100, 1000, 8 * 3_600_000];

  it.each(SLOW)("of decoding alone, %i ms, it still keeps prompt steps to their time", (ms) => {
    for (const times of [1, 3]) {
      const { budget, rows } = learned();
      for (let i = 0; i < times; i++) budget.record(DECODING, ms);
      for (const found of prefill(budget, MACHINE, 12, { decoding: DECODING })) {
        expect(found).toBeLessThan(1.4 * rows);
      }
    }
  });

  it.each(SLOW)("of any kind, %i ms, it knows the machine again after ten steps", (ms) => {
    for (const slow of [DECODING, rowsAt(27)]) {
      for (const times of [1, 3]) {
        const { budget, rows } = learned();
        for (let i = 0; i < times; i++) budget.record(slow, ms);
        for (let i = 0; i < 5; i++) {
          decode(budget, MACHINE, 4);
          prefill(budget, MACHINE, 1, { decoding: DECODING });
        }
        decode(budget, MACHINE, 4);
        expect(budget.msPerRow).toBeGreaterThan(MACHINE.rowMs / 2);
        expect(budget.msPerRow).toBeLessThan(2 * MACHINE.rowMs);
        expect(4 + budget.prefillRows(DECODING)).toBeGreaterThan(0.7 * rows);
      }
    }
  });

  it("forgets the first, which compiles pipelines, with the second", () => {
    const machine = { fixedMs: 4, rowMs: 0.5 };
    const budget = new StepBudget({ budgetMs: 50, maxRows: 512 });
    budget.record(rowsAt(FEWEST_ROWS), 3000);
    const rows = prefill(budget, machine, 8);
    expect(rows.slice(0, 4)).toEqual([4, 8, 16, 32]);
    expect(rows.at(-1)).toBeGreaterThan(60);
  });

  it("believes a machine that stays slow, and one that is fast again", () => {
    const { budget, rows } = learned();
    const slow = { fixedMs: 200, rowMs: 10 };
    decode(budget, slow, 4, 10);
    for (const found of prefill(budget, slow, 10, { decoding: DECODING })) {
      expect(msOf(slow, rowsAt(found))).toBeLessThan(MAX_FLOOR_MS);
    }
    const again = prefill(budget, MACHINE, 10, { decoding: DECODING });
    expect(again.at(-1)).toBeGreaterThan(0.9 * rows);
    expect(Math.max(...again)).toBeLessThan(1.3 * rows);
  });

  it("never takes rows for free, however dear small steps seem", () => {
    const { budget } = learned();
    for (let i = 0; i < 3; i++) budget.record(DECODING, 1000);
    expect(budget.msPerRow).toBeGreaterThan(0.1);
  });
});

describe("StepBudget on slow machines and in long contexts", () => {
  it("keeps to MAX_FLOOR_MS where the floor's rows would take longer, down to FEWEST_ROWS", () => {
    for (const [rowMs, most] of [
      [100, 9],
      [180, 5],
      [400, FEWEST_ROWS],
      [4000, FEWEST_ROWS],
    ] as const) {
      const budget = new StepBudget({ budgetMs: 50, maxRows: 256 });
      const machine = { fixedMs: 20, rowMs };
      const rows = prefill(budget, machine, 20);
      expect(rows.at(-1)).toBe(most);
      expect(Math.max(...rows.slice(1))).toBeLessThanOrEqual(most);
    }
  });

  const BUDGET_MS = 50;

  // Attention may cost a fifth or five times of what it is taken to cost.
  it.each([POSITIONS_PER_ROW / 5, POSITIONS_PER_ROW, 5 * POSITIONS_PER_ROW])(
    "stays near the budget when prompts go on deep in their context: %i positions as dear as a row",
    (positionsPerRow) => {
      const machine = { fixedMs: 10, rowMs: 0.1, positionsPerRow };
      const budget = new StepBudget({ budgetMs: BUDGET_MS, maxRows: 1000 });
      decode(budget, machine, 2);
      prefill(budget, machine, 10);
      const deepRows: number[] = [];
      for (const depth of [8192, 0, 8192, 0, 8192, 0]) {
        const rows = prefill(budget, machine, 8, { depth });
        for (const found of rows) {
          expect(msOf(machine, rowsAt(found, depth))).toBeLessThan(3.5 * BUDGET_MS);
        }
        expect(msOf(machine, rowsAt(rows.at(-1)!, depth))).toBeGreaterThan(BUDGET_MS / 2);
        if (depth > 0) deepRows.push(rows[0]!);
      }
      // Without regard to depth the first of them would have some 350 rows.
      expect(Math.max(...deepRows)).toBeLessThan(120);
    },
  );
});
