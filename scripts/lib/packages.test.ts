import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { ensurePackages, samePackages } from "./packages.mjs";

test("two commands at once install the packages once", async () => {
  const folder = mkdtempSync(join(tmpdir(), "quire-packages-"));
  const path = process.env["PATH"] ?? "";
  try {
    const lock = JSON.stringify({ packages: { "node_modules/a": { version: "1.0.0" } } });
    writeFileSync(join(folder, "package-lock.json"), lock);
    mkdirSync(join(folder, "bin"));
    const npm = `#!/bin/sh
      echo "$1" >> calls
      rm -rf node_modules; sleep 0.3; mkdir node_modules
      cp package-lock.json node_modules/.package-lock.json`;
    writeFileSync(join(folder, "bin/npm"), npm);
    chmodSync(join(folder, "bin/npm"), 0o755);
    process.env["PATH"] = `${join(folder, "bin")}${delimiter}${path}`;
    vi.spyOn(process.stderr, "write").mockReturnValue(true);
    await Promise.all([ensurePackages(folder), ensurePackages(folder)]);
    await ensurePackages(folder);
    expect(readFileSync(join(folder, "calls"), "utf8")).toBe("ci\n");
  } finally {
    process.env["PATH"] = path;
    vi.restoreAllMocks();
    rmSync(folder, { recursive: true });
  }
});

describe("samePackages", () => {
  const wanted = {
    "": { version: "1.0.0" },
    "node_modules/a": { version: "1.0.0", integrity: "x" },
    "node_modules/b": { version: "1.0.0", integrity: "y", optional: true },
  };
  test.each([
    ["the same", { "node_modules/a": { version: "1.0.0", integrity: "x" } }, true],
    ["another version", { "node_modules/a": { version: "1.0.1", integrity: "x" } }, false],
    ["other bytes", { "node_modules/a": { version: "1.0.0", integrity: "z" } }, false],
    ["nothing", {}, false],
    [
      "something more",
      {
        "node_modules/a": { version: "1.0.0", integrity: "x" },
        "node_modules/c": { version: "1.0.0" },
      },
      false,
    ],
  ])("%s", (_, installed, same) => {
    expect(samePackages(wanted, installed)).toBe(same);
  });
});
