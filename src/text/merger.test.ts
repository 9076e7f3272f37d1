import { BPE } from "@huggingface/tokenizers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createLongWordMerger } from "./longWordMerger.ts";
import type { Merge } from "./merge.ts";
import { createMerger } from "./merger.ts";

/** Merges as slowly as the rule reads: the pair of the lowest rank, the leftmost first, one at a time. */
function mergeByRule(word: string, merges: readonly Merge[]): string[] {
  const pieces = Array.from(word);
  for (;;) {
    let best: { at: number; rank: number } | undefined;
    for (let at = 0; at + 1 < pieces.length; at++) {
      const merge = merges.find(([left, right]) => left === pieces[at] && right === pieces[at + 1]);
      if (merge && (best === undefined || merge[2] < best.rank)) best = { at, rank: merge[2] };
    }
    if (best === undefined) return pieces;
    pieces.splice(best.at, 2, pieces[best.at]! + pieces[best.at + 1]!);
  }
}

const piece = fc.string({ unit: fc.constantFrom("a", "b", "😀"), minLength: 1, maxLength: 3 });
const anyMerges = fc.array(fc.tuple(piece, piece, fc.nat(6)), { maxLength: 12 });
const anyWord = fc.string({ unit: fc.constantFrom("a", "b", "😀", "c"), maxLength: 40 });

test("both loops follow the rule, with equal ranks and pairs named twice", () => {
  fc.assert(
    fc.property(anyMerges, anyWord, (merges, word) => {
      const expected = mergeByRule(word, merges);
      expect(createMerger(() => merges)(word)).toEqual(expected);
      expect(createLongWordMerger(merges)(word)).toEqual(expected);
    }),
    { numRuns: 3000 },
  );
});

test("long words come out as from the library", () => {
  const merges: Merge[] = ["aa", "aaaa", "ab", "ba", "aab"].map((text, rank) => {
    const cut = text.length === 4 ? 2 : 1;
    return [text.slice(0, cut), text.slice(cut), rank];
  });
  const library = new BPE({
    type: "BPE",
    vocab: {},
    merges: merges.map(([left, right]): [string, string] => [left, right]),
    ignore_merges: false,
  });
  const merge = createMerger(() => merges);
  for (const word of ["a".repeat(1001), "ab".repeat(500), "aab😀".repeat(300), "ba".repeat(200)]) {
    expect(merge(word)).toEqual(library.bpe(word));
  }
});

test("a long run takes time in proportion to its length", () => {
  const merges: Merge[] = Array.from({ length: 12 }, (_, i) => [
    "a".repeat(2 ** i),
    "a".repeat(2 ** i),
    i,
  ]);
  const merge = createMerger(() => merges);
  const start = performance.now();
  expect(merge("a".repeat(2 ** 20))).toHaveLength(2 ** 8);
  expect(performance.now() - start).toBeLessThan(10_000);
});

test("more different words than are remembered still come out right", () => {
  const merge = createMerger(() => [["a", "b", 0]]);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 25_000; i++) merge(`${i}`);
    expect(merge("cab0")).toEqual(["c", "ab", "0"]);
    expect(merge("12345")).toEqual([..."12345"]);
  }
});
