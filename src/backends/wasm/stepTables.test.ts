import { expect, it } from "vitest";
import { LOGITS_ROW_BYTES, sampleWords } from "./abi.ts";
import { writeSamples } from "./stepTables.ts";

const TABLES = { samples: 64, logitsRows: 256 };

it("lists each wanted row once, in the order in which samples and scores name them", () => {
  const words = new Int32Array(256);
  const samples = [
    { row: 9, slot: 2, position: 40 },
    { row: 4, slot: 3, position: 12 },
    { row: 9, slot: 5, position: 40 }, // of another slot's row
    { row: 5, slot: 3, position: 13 }, // of the same slot
  ];
  const scores = [
    { row: 0, token: 7, top: 0 },
    { row: 1, token: 8, top: 2 },
  ];
  expect(writeSamples({ samples, scores }, words, TABLES)).toBe(5);
  const listed = Array.from(
    { length: 5 },
    (_, i) => words[(TABLES.logitsRows + i * LOGITS_ROW_BYTES) / 4],
  );
  expect(listed).toEqual([9, 4, 5, 0, 1]);
  const records = Array.from({ length: 6 }, (_, i) => (TABLES.samples + i * sampleWords.BYTES) / 4);
  expect(records.map((at) => words[at + sampleWords.LOGITS])).toEqual([0, 1, 0, 2, 3, 4]);
  expect(records.slice(0, 4).map((at) => words[at + sampleWords.SLOT])).toEqual([2, 3, 5, 3]);
  expect(records.slice(0, 4).map((at) => words[at + sampleWords.POSITION])).toEqual([
    40, 12, 40, 13,
  ]);
});
