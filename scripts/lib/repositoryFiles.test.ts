import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { inRoot } from "./paths.mjs";
import { repositoryFiles } from "./repositoryFiles.mjs";

const OWN = [".gitignore", "README.md", "src/model/a.ts"];
const IGNORED = [
  "node_modules/a/b.js",
  "dist/index.js",
  "models/a.gguf",
  "quire-0.1.0.tgz",
  "e2e/peers/node_modules/c.js",
];

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "quire-files-"));
  for (const file of [...OWN, ...IGNORED]) {
    mkdirSync(dirname(join(base, file)), { recursive: true });
    writeFileSync(join(base, file), "");
  }
  copyFileSync(inRoot(".gitignore"), join(base, ".gitignore"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(base, { recursive: true });
});

test("an unpacked archive has the files that git would have", async () => {
  vi.stubEnv("GIT_CEILING_DIRECTORIES", dirname(base));
  expect((await repositoryFiles(base)).sort()).toEqual(OWN);
});

test("so has a machine without git", async () => {
  vi.stubEnv("PATH", join(base, "dist"));
  expect((await repositoryFiles(base)).sort()).toEqual(OWN);
});

test("git knows better, where it answers", async () => {
  const git = join(base, "dist/git");
  writeFileSync(git, "#!/bin/sh\nprintf 'README.md\\0src/kept.ts\\0'\n");
  chmodSync(git, 0o755);
  vi.stubEnv("PATH", join(base, "dist"));
  expect(await repositoryFiles(base)).toEqual(["README.md", "src/kept.ts"]);
});
