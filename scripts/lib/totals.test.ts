import { describe, expect, test } from "vitest";
import { countVitest, totalsLine } from "./totals.mjs";

describe("countVitest", () => {
  const report = {
    numPassedTests: 5,
    numFailedTests: 1,
    numPendingTests: 2,
    numTodoTests: 1,
    testResults: [{ name: "a", status: "failed", assertionResults: [{ status: "failed" }] }],
  };
  const broken = { name: "b", status: "failed", assertionResults: [] };
  test("counts tests", () => {
    expect(totalsLine(countVitest(report, 1))).toBe("5 passed, 1 failed, 3 skipped");
  });
  test("counts a file that did not load, and a run that failed in no file", () => {
    const testResults = [...report.testResults, broken];
    expect(countVitest({ ...report, testResults }, 1).failed).toBe(2);
    const clean = { ...report, numFailedTests: 0, testResults: [] };
    expect(countVitest(clean, 1).failed).toBe(1);
    expect(countVitest(clean, 0).failed).toBe(0);
  });
});
