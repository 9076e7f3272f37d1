import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { QuireError } from "../errors.ts";
import { StopStrings } from "./stopStrings.ts";

/** Pushes the pieces; returns what came out, finish included if nothing stopped. */
function run(stops: readonly string[], pieces: readonly string[]) {
  const watcher = new StopStrings(stops);
  let text = "";
  for (const piece of pieces) {
    const result = watcher.push(piece);
    text += result.text;
    if (result.stop !== undefined) return { text, stop: result.stop };
  }
  return { text: text + watcher.finish(), stop: undefined };
}

/** The same by trying every end in turn. */
function search(stops: readonly string[], text: string) {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (found.length > 0) {
      const stop = found.reduce((a, b) => (b.length > a.length ? b : a));
      return { text: text.slice(0, end - stop.length), stop };
    }
  }
  return { text, stop: undefined };
}

// Few letters, so that stop strings overlap each other and themselves.
const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
const stopList = fc.array(
  fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 5 }),
  {
    maxLength: 4,
  },
);

describe("properties", () => {
  test("the first complete stop string is cut off, however the text is split", () => {
    fc.assert(
      fc.property(stopList, fc.array(letters, { maxLength: 6 }), (stops, pieces) => {
        const expected = search(stops, pieces.join(""));
        expect(run(stops, pieces)).toEqual(expected);
        expect(run(stops, [...pieces.join("")])).toEqual(expected);
      }),
      { numRuns: 2000 },
    );
  });

  test("what is held back is the longest end of the text that begins a stop string", () => {
    fc.assert(
      fc.property(stopList, letters, (stops, text) => {
        const { text: shown, stop } = new StopStrings(stops).push(text);
        if (stop !== undefined) return;
        const held = text.slice(shown.length);
        expect(shown + held).toBe(text);
        const beginnings = new Set(
          stops.flatMap((s) => Array.from({ length: s.length }, (_, k) => s.slice(0, k))),
        );
        beginnings.add("");
        const longest = Array.from({ length: text.length + 1 }, (_, from) => text.slice(from)).find(
          (end) => beginnings.has(end),
        );
        expect(held).toBe(longest);
      }),
      { numRuns: 2000 },
    );
  });
});

test("without stop strings text passes at once", () => {
  expect(new StopStrings([]).push("abc")).toEqual({ text: "abc", stop: undefined });
});

test("a beginning is let out once it is none", () => {
  const watcher = new StopStrings(["\n\nUser:"]);
  expect(watcher.push("Hi\n")).toEqual({ text: "Hi", stop: undefined });
  expect(watcher.push("\nUs")).toEqual({ text: "", stop: undefined });
  expect(watcher.push("ually")).toEqual({ text: "\n\nUsually", stop: undefined });
});

test("finish gives back what was held", () => {
  const watcher = new StopStrings(["END"]);
  expect(watcher.push("the EN").text).toBe("the ");
  expect(watcher.finish()).toBe("EN");
  expect(watcher.finish()).toBe("");
});

test("nothing comes out after a stop string", () => {
  const watcher = new StopStrings(["END"]);
  expect(watcher.push("a END b")).toEqual({ text: "a ", stop: "END" });
  expect(watcher.push("more")).toEqual({ text: "", stop: "END" });
  expect(watcher.finish()).toBe("");
});

test("of stop strings complete at once the longest is cut off", () => {
  expect(run(["b", "ab"], ["a", "b"])).toEqual({ text: "", stop: "ab" });
  expect(run(["abcd", "bc"], ["abcd"])).toEqual({ text: "a", stop: "bc" });
});

test("emoji and other characters of two code units are not torn apart", () => {
  expect(run(["😀"], ["a😁", "😀b"])).toEqual({ text: "a😁", stop: "😀" });
  expect(new StopStrings(["\ude00"]).push("😀")).toEqual({ text: "😀", stop: undefined });
});

test("empty and other non-strings are refused", () => {
  for (const stops of [[""], ["a", ""], [5 as unknown as string]]) {
    expect(() => new StopStrings(stops)).toThrow(QuireError);
    expect(() => new StopStrings(stops)).toThrow(/Stop string \d is (empty|not a string)/);
  }
});

test("a hundred stop strings and a long text take linear time", () => {
  const stops = Array.from({ length: 100 }, (_, i) => `${"a".repeat(50 + i)}b`);
  const start = performance.now();
  const result = run(
    stops,
    Array.from({ length: 20_000 }, () => "aaaaa"),
  );
  expect(result.text).toHaveLength(100_000);
  expect(performance.now() - start).toBeLessThan(3000);
});
