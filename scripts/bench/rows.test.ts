import { expect, test } from "vitest";
import {
  alignTable,
  breakdownTable,
  digits,
  type Row,
  resultTable,
  STEP_IN_WORKER,
  stepRatios,
} from "./rows.mjs";

function row(name: string, batch: number, median: number, more: Partial<Row> = {}): Row {
  const spread = { min: median, max: median, runs: 5 };
  return { name, backend: "wasm", batch, unit: "ms/step", median, ...spread, ...more };
}

test("columns of a table are aligned", () => {
  expect(
    alignTable([
      ["name", "ms"],
      ["a", "10.5"],
      ["longer", "1"],
    ]),
  ).toEqual(["name      ms", "a       10.5", "longer     1"]);
});

test("numbers keep three digits", () => {
  expect([0.0317, 5.432, 54.32, 543.2].map(digits)).toEqual(["0.032", "5.432", "54.32", "543.2"]);
});

test("a step's rate counts its batch; what did not end has no numbers", () => {
  const hung = { name: "peers", backend: "wllama", batch: 8, unit: "tokens/s", part: "8 chats" };
  const lines = resultTable([
    row("decode", 8, 40, { context: 128 }),
    { ...hung, median: null, min: null, max: null, runs: 0, note: "hangs: 4 of 8 chats ended" },
  ]);
  expect(lines[1]).toMatch(/^decode .* 8 +128 +40.00 .* ms\/step +5 +200.0 tokens\/s$/);
  expect(lines[2]).toMatch(/^peers: 8 chats +8 +- +- +- +tokens\/s +0 +hangs: 4 of 8 chats ended$/);
});

test("a step is compared with the bare linear layers of its own batch", () => {
  const rows = [row("decode", 1, 6, { context: 128 }), row("walk", 1, 4.5), row("walk", 8, 20)];
  expect(stepRatios(rows)).toEqual([
    "batch 1, context 128: a decode step takes 1.33 x its bare linear layers (walk), whose rate it reaches to 75 %",
  ]);
  expect(stepRatios([row("decode", 2, 6)])).toEqual([]);
});

test("the parts of a step add up to the step through the API", () => {
  const part = (name: string, median: number) => row("breakdown", 1, median, { part: name });
  const parts = [part("linear layers", 4), part("attention", 0.5), part(STEP_IN_WORKER, 5)];
  const lines = breakdownTable([...parts, row("decode", 1, 8)]).map((line) =>
    line.trim().split(/ {2,}/),
  );
  expect(lines).toEqual([
    ["where a step goes", "batch 1: ms", "share"],
    ["linear layers", "4.000", "50.0 %"],
    ["attention", "0.500", "6.3 %"],
    [STEP_IN_WORKER, "5.000", "62.5 %"],
    ["scheduling, messages, text", "3.000", "37.5 %"],
    ["decode step through the API", "8.000", "100.0 %"],
  ]);
  expect(breakdownTable(parts).at(-1)).toContain("100.0 %");
});
