import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ensureBuilt } from "./build.mjs";

const BUILD = {
  name: "thing",
  script: "make",
  sources: ["src", "package.json"],
  folder: "dist",
  outputs: ["dist/thing.js"],
};

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "quire-build-"));
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
  // Slow enough for two at once to meet.
  const make = "echo made >> log; rm -rf dist; sleep 0.2; mkdir dist; cp src/thing.js dist/";
  writeFileSync(join(base, "package.json"), JSON.stringify({ scripts: { make } }));
  mkdirSync(join(base, "src"));
  write("src/thing.js", "one");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(base, { recursive: true });
});

function write(path: string, text: string): void {
  writeFileSync(join(base, path), text);
}

const ensure = () => ensureBuilt(BUILD, base);
const timesMade = () => readFileSync(join(base, "log"), "utf8").trim().split("\n").length;

test("two at once build once, and nobody builds again", async () => {
  await Promise.all([ensure(), ensure()]);
  await ensure();
  expect(timesMade()).toBe(1);
});

test("builds again when a source has changed, also back", async () => {
  await ensure();
  write("src/thing.js", "two");
  await ensure();
  expect(readFileSync(join(base, "dist/thing.js"), "utf8")).toBe("two");
  write("src/thing.js", "one");
  await ensure();
  expect(timesMade()).toBe(3);
});

test("does not take another build's outputs for those of these sources", async () => {
  await ensure();
  // As `npm run build` leaves them when the sources are changed before and back after it.
  write("dist/thing.js", "two");
  await ensure();
  expect(readFileSync(join(base, "dist/thing.js"), "utf8")).toBe("one");
  rmSync(join(base, "dist"), { recursive: true });
  await ensure();
  expect(timesMade()).toBe(3);
});

test("a build that fails or leaves nothing is an error, and is tried again", async () => {
  const scripts = (make: string) => write("package.json", JSON.stringify({ scripts: { make } }));
  scripts("exit 3");
  await expect(ensure()).rejects.toThrow("npm run make failed with exit code 3");
  scripts("exit 0");
  await expect(ensure()).rejects.toThrow("left no dist/thing.js");
  await expect(ensure()).rejects.toThrow("left no dist/thing.js");
});
