import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { runMain, UsageError } from "./lib/errors.mjs";
import { MUTANTS } from "./lib/mutants.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { inRoot } from "./lib/paths.mjs";
import { say } from "./lib/progress.mjs";
import { beforeEnd } from "./lib/signals.mjs";

// Do the engine's tests notice when a rule is broken? Breaks one rule after the other in a copy of the
// engine and runs its tests: each mutant must make one fail. For people who change the engine; takes some
// ten seconds a mutant. `node scripts/mutate.mjs [words]`: only mutants whose file or rule has one of them.

/** A mutant that loops for ever is noticed too. */
const TIMEOUT_MS = 180_000;

const CONFIG = `export default {
  test: { include: ["src/**/*.test.ts"], pool: "forks", testTimeout: 60_000 },
};
`;

/** Property tests take longest, and most mutants die without them. */
const RUNS = [["--exclude", "**/*.property.test.ts"], ["property"]];

/** Ends the tests that run. */
let stopTests = () => {};

/**
 * Runs some of a folder's tests up to the first that fails. Resolves to what failed, if anything did.
 * @param {string} folder
 * @param {readonly string[]} which
 * @returns {Promise<string | undefined>}
 */
function runTests(folder, which) {
  const vitest = inRoot("node_modules/vitest/vitest.mjs");
  const args = [vitest, "run", "--bail", "1", "--reporter", "dot", "--root", folder, ...which];
  return new Promise((resolve, reject) => {
    // A process group of its own: the tests run in processes that vitest starts.
    const child = spawn(process.execPath, args, {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let output = "";
    let isLate = false;
    stopTests = () => process.kill(-(/** @type {number} */ (child.pid)), "SIGKILL");
    const timer = setTimeout(() => {
      isLate = true;
      stopTests();
    }, TIMEOUT_MS);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text;
      });
    }
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      stopTests = () => {};
      if (isLate) resolve(`not done after ${TIMEOUT_MS / 1000} s`);
      else if (code === 0) resolve(undefined);
      else resolve(/FAIL\s+(.*)/.exec(stripVTControlCharacters(output))?.[1] ?? "does not run");
    });
  });
}

/** What fails of a folder's tests. @param {string} folder */
async function findFailure(folder) {
  for (const which of RUNS) {
    const failure = await runTests(folder, which);
    if (failure !== undefined) return failure;
  }
  return undefined;
}

/** @param {string} folder */
function copyEngine(folder) {
  cpSync(inRoot("src/engine"), join(folder, "src/engine"), { recursive: true });
  cpSync(inRoot("src/errors.ts"), join(folder, "src/errors.ts"));
  symlinkSync(inRoot("node_modules"), join(folder, "node_modules"), "junction");
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }\n');
  writeFileSync(join(folder, "vitest.config.mjs"), CONFIG);
}

await runMain(async () => {
  const words = process.argv.slice(2);
  const mutants = Object.entries(MUTANTS)
    .flatMap(([file, all]) => all.map(([rule, find, replace]) => ({ file, rule, find, replace })))
    .filter(({ file, rule }) => {
      return words.length === 0 || words.some((word) => `${file} ${rule}`.includes(word));
    });
  if (mutants.length === 0)
    throw new UsageError(`No mutant's file or rule has ${words.join(" or ")}.`);
  await ensurePackages();
  const folder = mkdtempSync(join(tmpdir(), "quire-mutants-"));
  const forget = beforeEnd(() => {
    stopTests();
    rmSync(folder, { recursive: true, force: true });
  });
  let numSurvivors = 0;
  try {
    copyEngine(folder);
    const failure = await findFailure(folder);
    if (failure !== undefined) throw new Error(`A test fails without any mutant: ${failure}`);
    for (const { file, find, replace, rule } of mutants) {
      const path = join(folder, "src/engine", file);
      const text = readFileSync(path, "utf8");
      const count = text.split(find).length - 1;
      if (count !== 1) throw new Error(`${file} has this ${count} times, not once: ${find}`);
      writeFileSync(
        path,
        text.replace(find, () => replace),
      );
      const test = await findFailure(folder);
      writeFileSync(path, text);
      if (test === undefined) numSurvivors += 1;
      say(
        `${test === undefined ? "SURVIVED" : "noticed"} ${file}: ${rule}${test === undefined ? "" : ` <- ${test}`}`,
      );
    }
  } finally {
    forget();
    rmSync(folder, { recursive: true, force: true });
  }
  process.stdout.write(`${mutants.length} mutants, ${numSurvivors} survived\n`);
  return numSurvivors === 0 ? 0 : 1;
});
