import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { SetupError } from "./errors.mjs";
import { checkNode, isInRange } from "./nodeVersion.mjs";
import { inRoot } from "./paths.mjs";

const read = (file: string) => JSON.parse(readFileSync(inRoot(file), "utf8"));
const range: string = read("package.json").engines.node;
const lock: Record<string, { engines?: { node?: string }; optional?: boolean }> =
  read("package-lock.json").packages;

test.each([
  ["20.19.0", "^20.19.0 || >=22.12.0", true],
  ["20.18.3", "^20.19.0 || >=22.12.0", false],
  ["21.7.0", "^20.19.0 || >=22.12.0", false],
  ["22.12.1", "^20.19.0 || >=22.12.0", true],
  ["30.0.0", "^20.19.0 || >=22.12.0", true],
  ["20.1.0", "20 || >=22", true],
  ["21.0.0", "20 || >=22", false],
  ["12.3.4", "10.* || >= 12.*", true],
  ["11.0.0", "10.* || >= 12.*", false],
  ["14.5.9", ">= 14.6", false],
  ["1.0.0", "*", true],
])("%s in %s: %s", (version, among, is) => {
  expect(isInRange(version, among)).toBe(is);
});

describe("package.json's engines", () => {
  const oldest = range.split("||").map((part) => part.replace(/[^\d.]/g, ""));

  test.each(oldest)("%s is enough for every package of the lock file", (version) => {
    const unhappy = Object.entries(lock).filter(
      ([path, { engines, optional }]) =>
        path !== "" && !optional && !isInRange(version, engines?.node ?? "*"),
    );
    expect(unhappy).toEqual([]);
  });

  test.each(["18.20.8", "20.18.3", "22.11.0", "23.11.1"])("%s is refused", (version) => {
    expect(() => checkNode(version)).toThrow(SetupError);
    expect(() => checkNode(version)).toThrow(`Node ${version} does not do`);
  });

  test("this Node will do", () => expect(() => checkNode()).not.toThrow());
});
