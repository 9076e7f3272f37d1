import { expect, it } from "vitest";
import type { StepRow } from "../../engine/step.ts";
import { itemWords, KV_SPLIT, mergeWords } from "./abi.ts";
import { maxItems, maxPartials, maxRowsFor, partialBytes, writeWorkList } from "./workList.ts";

function row(slot: number, position: number): StepRow {
  return { slot, position, token: 0, kvSlot: 0 };
}

/** The lists that a step's rows make, as objects. */
function list(rows: readonly StepRow[]) {
  const context = Math.max(...rows.map(({ position }) => position)) + 1;
  const itemsAt = 64;
  const mergesAt = itemsAt + maxItems(rows.length, context) * itemWords.BYTES;
  const words = new Int32Array((mergesAt + rows.length * mergeWords.BYTES) / 4);
  const { items, merges } = writeWorkList(rows, words, itemsAt, mergesAt);
  const record = (at: number) => [...words.subarray(at / 4, at / 4 + 4)] as const;
  return {
    items: Array.from({ length: items }, (_, i) => {
      const [row, first, end, partial] = record(itemsAt + i * itemWords.BYTES);
      return { row, first, end, partial };
    }),
    merges: Array.from({ length: merges }, (_, i) => {
      const [row, firstPartial, partials] = record(mergesAt + i * mergeWords.BYTES);
      return { row, firstPartial, partials };
    }),
  };
}

it("writes rows of one range as they are", () => {
  expect(list([row(0, 0), row(0, 1), row(3, 63)])).toEqual({
    items: [
      { row: 0, first: 0, end: 1, partial: -1 },
      { row: 1, first: 0, end: 2, partial: -1 },
      { row: 2, first: 0, end: 64, partial: -1 },
    ],
    merges: [],
  });
});

it("puts the rows of a sequence that share a range next to each other", () => {
  expect(list([row(0, 63), row(0, 64), row(0, 65), row(1, 128)])).toEqual({
    items: [
      { row: 0, first: 0, end: 64, partial: -1 },
      { row: 1, first: 0, end: 64, partial: 0 },
      { row: 2, first: 0, end: 64, partial: 2 },
      { row: 1, first: 64, end: 65, partial: 1 },
      { row: 2, first: 64, end: 66, partial: 3 },
      { row: 3, first: 0, end: 64, partial: 4 },
      { row: 3, first: 64, end: 128, partial: 5 },
      { row: 3, first: 128, end: 129, partial: 6 },
    ],
    merges: [
      { row: 1, firstPartial: 0, partials: 2 },
      { row: 2, firstPartial: 2, partials: 2 },
      { row: 3, firstPartial: 4, partials: 3 },
    ],
  });
});

it("covers every position of every row once, whatever the step", () => {
  const rows = [
    ...Array.from({ length: 90 }, (_, i) => row(2, 100 + i)),
    row(0, 700),
    ...Array.from({ length: 70 }, (_, i) => row(1, i)),
  ];
  const { items, merges } = list(rows);
  const partials = items.filter(({ partial }) => partial! >= 0);
  expect(new Set(partials.map(({ partial }) => partial)).size).toBe(partials.length);
  for (const [index, { position }] of rows.entries()) {
    const own = items.filter((item) => item.row === index).sort((a, b) => a.first! - b.first!);
    expect(own.map(({ first }) => first)).toEqual(own.map((_, i) => i * KV_SPLIT));
    expect(own.map(({ end }) => end)).toEqual(
      own.map((_, i) => Math.min(position + 1, (i + 1) * KV_SPLIT)),
    );
    expect(own.at(-1)?.end).toBe(position + 1);
    const merge = merges.find((candidate) => candidate.row === index);
    if (own.length === 1) expect([own[0]!.partial, merge]).toEqual([-1, undefined]);
    else {
      expect(merge?.partials).toBe(own.length);
      expect(own.map(({ partial }) => partial)).toEqual(
        own.map((_, i) => merge!.firstPartial! + i),
      );
    }
  }
  expect(partials.length).toBeLessThanOrEqual(maxPartials(rows.length, 701));
});

it("bounds the rows of a step by the bytes of their partial results", () => {
  expect(partialBytes(9, 64)).toBe(9 * (64 + 4) * 4);
  const aRow = (4096 / KV_SPLIT) * partialBytes(9, 64);
  expect(maxRowsFor(aRow * 10, 4096, 9, 64)).toBe(10);
  expect(maxRowsFor(aRow * 10 - 1, 4096, 9, 64)).toBe(9);
  expect(maxRowsFor(1, 4096, 9, 64)).toBe(1);
  expect(maxRowsFor(0, KV_SPLIT, 9, 64)).toBe(Infinity);
  expect(maxPartials(100, KV_SPLIT)).toBe(0);
  expect(maxPartials(100, KV_SPLIT + 1)).toBe(200);
});
