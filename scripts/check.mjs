import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ensureLibrary } from "./lib/build.mjs";
import { capture, packageBin } from "./lib/command.mjs";
import { runMain } from "./lib/errors.mjs";
import { helpText, parseFlags } from "./lib/flags.mjs";
import { checkImports } from "./lib/imports.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { inRoot, root } from "./lib/paths.mjs";
import { repositoryFiles } from "./lib/repositoryFiles.mjs";
import { listFiles } from "./lib/stamp.mjs";
import { findForbidden, gzipBytes, isText } from "./lib/textRules.mjs";
import { totalsLine } from "./lib/totals.mjs";

/** Largest size of what a page loads, gzipped. Raise it only with a reason. */
const BUDGET_BYTES = { "dist/index.js": 155_000, "dist/global.js": 155_000 };

/**
 * A check resolves to what it found wrong: nothing = passed.
 * @type {readonly { name: string, needs?: "build", run: () => Promise<string> }[]}
 */
const CHECKS = [
  { name: "types", run: () => program("tsc", ["--noEmit", "-p", "."]) },
  { name: "lint and format", run: () => program("biome", ["check", "--error-on-warnings", "."]) },
  { name: "imports", run: imports },
  { name: "unused code", needs: "build", run: () => program("knip", ["--no-progress"]) },
  { name: "machine names", run: machineNames },
  { name: "package: publint", needs: "build", run: () => program("publint", ["--strict"]) },
  { name: "package: types", needs: "build", run: packageTypes },
  { name: "bundle size", needs: "build", run: bundleSize },
];

await runMain(async () => {
  const { help } = parseFlags(process.argv.slice(2), {});
  if (help) {
    process.stdout.write(helpText("npm run check", {}));
    return;
  }
  await ensurePackages();
  // The checks that need no build run even where it fails; the others then fail with its reason.
  const build = await ensureLibrary().then(
    () => "",
    (error) => String(error instanceof Error ? error.message : error),
  );
  const totals = { passed: 0, failed: 0, skipped: 0 };
  for (const check of CHECKS) {
    const start = performance.now();
    const found = (check.needs === "build" && build) || (await check.run());
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    if (found !== "") process.stdout.write(`${found.trimEnd()}\n`);
    process.stdout.write(`${found === "" ? "ok  " : "FAIL"} ${check.name} (${seconds} s)\n`);
    totals[found === "" ? "passed" : "failed"] += 1;
  }
  process.stdout.write(`${totalsLine(totals)}\n`);
  return totals.failed > 0 ? 1 : 0;
});

/**
 * Runs a program of the installed packages; its output counts only when it fails.
 * @param {string} name
 * @param {readonly string[]} args
 */
async function program(name, args) {
  const { code, output } = await capture(packageBin(name), args);
  if (code === 0) return "";
  return output.trim() === "" ? `${name} failed with exit code ${code}.` : output;
}

async function imports() {
  const { default: ts } = await import("typescript");
  const files = ["src", "demo"]
    .flatMap((folder) => listFiles(inRoot(folder)))
    .map((file) => file.slice(root.length + 1).replaceAll("\\", "/"))
    .filter((file) => /\.[jt]sx?$/.test(file));
  return checkImports(root, files, ts).join("\n");
}

async function machineNames() {
  const faults = [];
  for (const file of await repositoryFiles(root)) {
    const bytes = readIfThere(inRoot(file));
    if (bytes !== undefined && isText(bytes)) faults.push(...findForbidden(file, bytes.toString()));
  }
  return faults.join("\n");
}

/** A file that git knows may have been deleted. @param {string} path */
function readIfThere(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** "Are the types wrong", on the tarball that npm would publish. */
async function packageTypes() {
  const folder = inRoot(".cache/pack");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const args = ["pack", "--json", "--ignore-scripts", "--pack-destination", folder];
  const packed = await capture("npm", args);
  if (packed.code !== 0) return packed.output;
  const file = JSON.parse(packed.stdout)[0].filename;
  const profile = ["--profile", "esm-only", "--no-emoji"];
  // The script-tag bundle has no types and is not imported.
  const entries = ["--exclude-entrypoints", "./global.js"];
  return program("attw", [join(folder, file), ...profile, ...entries]);
}

async function bundleSize() {
  const faults = [];
  for (const [file, budget] of Object.entries(BUDGET_BYTES)) {
    const bytes = gzipBytes(inRoot(file));
    process.stdout.write(`     ${file}: ${bytes} bytes gzipped of ${budget}\n`);
    if (bytes > budget) faults.push(`${file} is ${bytes} bytes gzipped; the budget is ${budget}.`);
  }
  return faults.join("\n");
}
