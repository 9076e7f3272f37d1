import fc from "fast-check";
import { expect, test } from "vitest";
import { type Fragment, MarkedTokens } from "./markedTokens.ts";

/** The definition: longest first, each cuts what is left of the text from left to right. */
function cutByAll(text: string, ids: ReadonlyMap<string, number>): Fragment[] {
  const bytes = (mark: string) => new TextEncoder().encode(mark).length;
  const marks = [...ids.keys()].filter((mark) => mark !== "");
  let fragments: Fragment[] = [text];
  for (const mark of marks.sort((a, b) => bytes(b) - bytes(a))) {
    fragments = fragments.flatMap((fragment) => {
      if (typeof fragment === "number") return [fragment];
      return fragment.split(mark).flatMap((part, i) => (i === 0 ? [part] : [ids.get(mark)!, part]));
    });
  }
  return fragments.filter((fragment) => fragment !== "");
}

test("finds what the definition finds", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "<", "\uffff", "\u00e9", "\u{1f600}") });
  fc.assert(
    fc.property(fc.uniqueArray(text, { maxLength: 12 }), fc.array(text), (marks, parts) => {
      const ids = new Map(marks.map((mark, i) => [mark, i]));
      // Texts of marks, so that many of them are found.
      const input = parts.map((part, i) => marks[i % (marks.length || 1)] ?? part).join("");
      for (const each of [input, parts.join("")]) {
        expect(new MarkedTokens(ids).split(each)).toEqual(cutByAll(each, ids));
      }
    }),
    { numRuns: 500 },
  );
});

test("one mark inside another, at the start and the end", () => {
  const marks = new MarkedTokens(
    new Map([
      ["<|a|>", 1],
      ["<|a|>b", 2],
      ["b", 3],
      ["", 4],
    ]),
  );
  expect(marks.split("<|a|>b<|a|>cb<|a|")).toEqual([2, 1, "c", 3, "<|a|"]);
  expect(marks.split("")).toEqual([]);
  expect(new MarkedTokens(new Map()).split("<|a|>")).toEqual(["<|a|>"]);
});

test("long marks cost no more than their texts", () => {
  const ids = new Map(
    Array.from({ length: 1024 }, (_, i): [string, number] => [`${i}`.padEnd(4096, "x"), i]),
  );
  const start = performance.now();
  const marks = new MarkedTokens(ids);
  expect(marks.split(`a${"7".padEnd(4096, "x")}`)).toEqual(["a", 7]);
  // An index of all 4 Mi characters takes seconds and a gigabyte.
  expect(performance.now() - start).toBeLessThan(700);
});
