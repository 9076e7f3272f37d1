#!/usr/bin/env node
// Writes dist/types: the declarations that the package's entry reaches, and no others. What the
// worker is made of has types of its own (WebGPU's, comlink's) that must not ask anything of a user.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { inRoot } from "./lib/paths.mjs";

const ENTRY = "index.d.ts";
const OUT = inRoot("dist/types");

const emitted = mkdtempSync(join(tmpdir(), "quire-types-"));
try {
  const tsc = inRoot("node_modules/typescript/bin/tsc");
  const args = [tsc, "-p", inRoot("tsconfig.build.json"), "--outDir", emitted];
  execFileSync(process.execPath, args, { stdio: "inherit" });
  rmSync(OUT, { recursive: true, force: true });
  const done = new Set();
  const waiting = [join(emitted, ENTRY)];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (done.has(file)) continue;
    done.add(file);
    // Sources import each other as ".ts"; a consumer's compiler wants the name that runs.
    const text = readFileSync(file, "utf8").replace(
      /((?:from|import\()\s*")(\.[^"]+)\.ts"/g,
      (_, start, path) => {
        waiting.push(join(dirname(/** @type {string} */ (file)), `${path}.d.ts`));
        return `${start}${path}.js"`;
      },
    );
    const target = join(OUT, relative(emitted, file));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, text);
  }
  console.log(`dist/types: ${done.size} files`);
} finally {
  rmSync(emitted, { recursive: true, force: true });
}
