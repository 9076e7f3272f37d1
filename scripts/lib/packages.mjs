import { existsSync, readFileSync } from "node:fs";
import { run } from "./command.mjs";
import { SetupError } from "./errors.mjs";
import { inRoot } from "./paths.mjs";
import { say } from "./progress.mjs";

const OLDEST_NODE = 20;

/** Installs the npm packages of package-lock.json unless exactly they are there. */
export async function ensurePackages() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < OLDEST_NODE) {
    throw new SetupError(
      "setup-node",
      `Node ${process.versions.node} is too old: Quire needs Node ${OLDEST_NODE} or newer.`,
    );
  }
  if (packagesCurrent()) return;
  say("Installing npm packages (npm ci)");
  await npm(["ci"]);
}

/**
 * Installs the packages of a folder that has a package.json and a lock file of its own. With `npm
 * install`: `npm ci` refuses a lock file that leaves out the builds for other systems.
 * @param {string} folder relative to the root
 */
export async function ensureFolderPackages(folder) {
  if (packagesCurrent(folder)) return;
  say(`Installing npm packages in ${folder} (npm install)`);
  await npm(["install"], folder);
}

/** @param {readonly string[]} args @param {string} [folder] */
async function npm(args, folder = ".") {
  const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
  // npm run sets npm_config_* and INIT_CWD; they do no harm to a nested npm.
  const program = process.platform === "win32" ? "npm.cmd" : "npm";
  const code = await run(program, [...args, ...quiet], { cwd: inRoot(folder) });
  if (code !== 0) {
    const message = `npm ${args.join(" ")} failed with exit code ${code}; see above.`;
    throw new SetupError("setup-packages", message);
  }
}

/** Whether a folder's node_modules holds what its lock file asks for. @param {string} [folder] */
function packagesCurrent(folder = ".") {
  const installed = inRoot(`${folder}/node_modules/.package-lock.json`);
  if (!existsSync(installed)) return false;
  const read = (/** @type {string} */ file) => JSON.parse(readFileSync(file, "utf8")).packages;
  return samePackages(read(inRoot(`${folder}/package-lock.json`)), read(installed));
}

/**
 * @typedef {Record<string, { version?: string, integrity?: string, optional?: boolean, link?: boolean }>} LockEntries
 */

/**
 * Compares a lock file with npm's note of what it installed. Optional packages (those of other
 * platforms) may be missing.
 * @param {LockEntries} wanted
 * @param {LockEntries} installed
 */
export function samePackages(wanted, installed) {
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === "" || entry.link) continue;
    const found = installed[path];
    if (found === undefined) {
      if (entry.optional) continue;
      return false;
    }
    if (found.version !== entry.version || found.integrity !== entry.integrity) return false;
  }
  return Object.keys(installed).every((path) => path === "" || path in wanted);
}
