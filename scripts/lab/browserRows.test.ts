import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { inRoot } from "../lib/paths.mjs";
import type { Policy } from "../pages/policies.js";
import { compare, type Point, pointRows } from "./browserRows.mjs";

function point(system: Policy, load: number, throughput: number, p99: number, first = 100): Point {
  return {
    system,
    case: `knee-${load}`,
    load,
    rate: 5 * load,
    throughput,
    meanNormalizedLatency: p99 / 3,
    p50NormalizedLatency: p99 / 4,
    p99NormalizedLatency: p99,
    p50FirstToken: first / 2,
    p99FirstToken: first,
  };
}

const SERIAL = { system: "serial", points: [point("serial", 0.8, 80, 100, 1000)] } as const;
const QUIRE = {
  system: "quire",
  points: [
    point("quire", 0.8, 80, 20, 150),
    point("quire", 2, 200, 50),
    point("quire", 3, 280, 200),
  ],
} as const;
const LIMITS = { knee: 5, rowGain: 3.2, requestGain: 2.4 };

function find(rows: ReturnType<typeof compare>["rows"], metric: string, which?: string) {
  return rows.find((row) => row.metric === metric && (which === undefined || row.case === which));
}

test("a point's rows have the lab's ids, units, and no number of the paper's", () => {
  const rows = pointRows([point("static", 0.8, 80, 40, 300)]);
  expect(rows).toHaveLength(6);
  expect(rows).toContainEqual({
    system: "ft",
    metric: "normalized-latency-p99",
    case: "knee-0.8",
    paper: null,
    ours: 40,
    unit: "ms/token",
    source: null,
  });
});

test("policies are compared at the p99 that serial has below its knee", () => {
  const statics = {
    system: "static",
    points: [point("static", 1.2, 120, 50), point("static", 2, 180, 200)],
  } as const;
  const { rows, notes } = compare([SERIAL, statics, QUIRE], LIMITS);
  // 100 ms/token lie half-way between 50 and 200 by their logarithms.
  expect(find(rows, "throughput-over-serial")?.ours).toBeCloseTo(240 / 80, 10);
  expect(find(rows, "share-of-walk-bound", "eight-rows-over-one")?.ours).toBeCloseTo(3 / 3.2, 10);
  expect(find(rows, "share-of-walk-bound", "requests-of-the-trace")?.ours).toBeCloseTo(1.25, 10);
  expect(find(rows, "throughput-over-static")?.ours).toBeCloseTo(240 / 150, 10);
  expect(find(rows, "first-token-p99-over-serial")?.ours).toBeCloseTo(0.15, 10);
  expect(find(rows, "knee")).toMatchObject({ system: "serial", ours: 5, unit: "requests/s" });
  expect(notes).toHaveLength(1);
});

test("a throughput beyond the measured rates is said to be the least or the most", () => {
  const slow = { system: "static", points: [point("static", 1.2, 120, 150)] } as const;
  const fast = {
    system: "quire",
    points: [point("quire", 0.8, 80, 20, 150), point("quire", 3, 280, 60)],
  } as const;
  const { rows, notes } = compare([SERIAL, slow, fast], LIMITS);
  expect(find(rows, "throughput-over-static")?.ours).toBeCloseTo(280 / 120, 10);
  expect(notes.slice(1)).toEqual([
    "quire was never so slow: its highest throughput counts, at least 280.0 tokens/s.",
    "static was slower: its lowest rate counts, at most 120.0 tokens/s.",
  ]);
});

test("without a point at the compared rate there is nothing to compare", () => {
  const serial = { system: "serial", points: [point("serial", 1, 80, 100)] } as const;
  expect(() => compare([serial, QUIRE], LIMITS)).toThrow("serial was not measured at 0.8.");
});

test("the lab's README lists the ids of every row", () => {
  const points = [0.8, 1.2].map((load) => point("serial", load, 80, 100, 1000));
  const curves = [
    { ...SERIAL, points },
    QUIRE,
    { system: "static", points: QUIRE.points } as const,
  ];
  const readme = readFileSync(inRoot("src/lab/README.md"), "utf8");
  for (const row of [...pointRows(points), ...compare(curves, LIMITS).rows]) {
    expect(readme).toContain(`\`${row.metric}\``);
    expect(readme).toContain(`\`${row.case}\``);
  }
});
