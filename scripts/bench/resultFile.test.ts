import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { UsageError } from "../lib/errors.mjs";
import { openResultFile } from "./resultFile.mjs";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-results-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("a file that cannot be written is a usage error at once", () => {
  expect(() => openResultFile(folder)).toThrow(UsageError);
  expect(() => openResultFile(join(folder, "none/results.json"))).toThrow(
    /--json .*none.results\.json cannot be written: ENOENT/,
  );
});

test("keeps what is in the file until there are results", () => {
  const path = join(folder, "results.json");
  writeFileSync(path, "older results");
  const file = openResultFile(path);
  expect(readFileSync(path, "utf8")).toBe("older results");
  file.discard();
  expect(readFileSync(path, "utf8")).toBe("older results");
  file.write({ results: [] });
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual({ results: [] });
});

test("leaves no file where nothing came of the measurement", () => {
  const path = join(folder, "results.json");
  openResultFile(path).discard();
  expect(existsSync(path)).toBe(false);
});
