import { expect, test } from "vitest";
import { fileNameOf, formatBytes, formatCount, formatDuration, formatRate } from "./format.ts";

test("bytes", () => {
  expect([0, 999, 1000, 98_362_432, 999_949_999, 999_950_000].map(formatBytes)).toEqual([
    "0 B",
    "999 B",
    "1.0 kB",
    "98.4 MB",
    "999.9 MB",
    "1.0 GB",
  ]);
});

test("counts, rates, seconds", () => {
  expect([12, 34_567, 134_515_008, 1_543_714_304].map(formatCount)).toEqual([
    "12",
    "35 k",
    "135 M",
    "1.5 B",
  ]);
  expect([0.416, 1.26, 99.94, 1234.5].map(formatRate)).toEqual(["0.42", "1.3", "99.9", "1235"]);
  expect([420, 12_340].map(formatDuration)).toEqual(["420 ms", "12 s"]);
});

test("file names", () => {
  expect(fileNameOf("https://example.com/a/b%20c.gguf?x=1")).toBe("b c.gguf");
  expect(fileNameOf("https://example.com/100%.gguf")).toBe("100%.gguf");
  expect(fileNameOf("plain.gguf")).toBe("plain.gguf");
});
