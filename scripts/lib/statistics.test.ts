import { expect, test } from "vitest";
import { summarize } from "./statistics.mjs";

test("a median of an odd and an even count", () => {
  expect(summarize([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3, runs: 3 });
  expect(summarize([4, 1, 2, 10])).toEqual({ median: 3, min: 1, max: 10, runs: 4 });
});
