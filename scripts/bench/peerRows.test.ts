import { expect, test } from "vitest";
import { comparisonTable, type Measure, type Outcome, peerRows } from "./peerRows.mjs";

function outcome(values: readonly [Measure, readonly number[]][], note?: string): Outcome {
  const notes = new Map(note === undefined ? [] : [["eight", note]]);
  return { about: {}, values: new Map(values), notes, promptTokens: new Map() };
}

const OUTCOMES = new Map([
  [
    "quire",
    outcome([
      ["one", [100, 120, 110]],
      ["eight", [200]],
      ["load", [900]],
    ]),
  ],
  [
    "other 1.0",
    outcome(
      [
        ["one", [11, 10, 12]],
        ["load", [1800]],
      ],
      "hangs: 4 of 8 chats ended",
    ),
  ],
]);

test("medians of all runs, and a note where there are none", () => {
  const rows = peerRows(OUTCOMES);
  const find = (backend: string, part: string) =>
    rows.find((row) => row.backend === backend && row.part === part);
  expect(find("quire", "one chat, decode")).toMatchObject({ median: 110, min: 100, runs: 3 });
  expect(find("other 1.0", "8 chats in all")).toMatchObject({
    median: null,
    runs: 0,
    note: "hangs: 4 of 8 chats ended",
  });
  expect(find("other 1.0", "4 chats in all")?.note).toBe("not measured");
});

test("the ratio is ours to the other's median", () => {
  const lines = comparisonTable(OUTCOMES, "quire");
  expect(lines[0]).toMatch(/quire +other 1.0 +quire is$/);
  expect(lines[1]).toMatch(/^one chat, decode, tokens\/s +110.0 +11.00 +10.00 x$/);
  expect(lines.find((line) => line.startsWith("8 chats in all, tokens"))).toMatch(
    /200.0 +hangs: 4 of 8 chats ended +-$/,
  );
  expect(lines.at(-1)).toMatch(/900.0 +1800.0 +0.50 x$/);
});
