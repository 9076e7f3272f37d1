import { existsSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { run } from "./command.mjs";
import { SetupError } from "./errors.mjs";
import { withLock } from "./lock.mjs";
import { checkNode } from "./nodeVersion.mjs";
import { inRoot, root } from "./paths.mjs";
import { say } from "./progress.mjs";

/**
 * Installs the npm packages of package-lock.json unless exactly they are there.
 * @param {string} [folder] absolute
 */
export async function ensurePackages(folder = root) {
  checkNode();
  await install(folder, "ci");
}

/**
 * Installs the packages of a folder that has a package.json and a lock file of its own. With `npm
 * install`: `npm ci` refuses a lock file that leaves out the builds for other systems.
 * @param {string} folder relative to the root
 */
export async function ensureFolderPackages(folder) {
  await install(inRoot(folder), "install");
}

/** @param {string} folder absolute @param {"ci" | "install"} command of npm */
async function install(folder, command) {
  if (packagesCurrent(folder)) return;
  // Not in node_modules, which npm ci removes.
  const lock = join(folder, ".cache/locks/packages");
  await withLock(lock, "installs npm packages", async () => {
    if (packagesCurrent(folder)) return;
    const place = folder === root ? "" : ` in ${relative(root, folder)}`;
    say(`Installing npm packages${place} (npm ${command})`);
    const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
    // npm run sets npm_config_* and INIT_CWD; they do no harm to a nested npm.
    const npm = process.platform === "win32" ? "npm.cmd" : "npm";
    const code = await run(npm, [command, ...quiet], { cwd: folder });
    if (code !== 0) {
      const message = `npm ${command} failed with exit code ${code}; see above.`;
      throw new SetupError("setup-packages", message);
    }
  });
}

/** Whether a folder's node_modules holds what its lock file asks for. @param {string} folder absolute */
function packagesCurrent(folder) {
  const installed = join(folder, "node_modules/.package-lock.json");
  if (!existsSync(installed)) return false;
  const read = (/** @type {string} */ file) => JSON.parse(readFileSync(file, "utf8")).packages;
  return samePackages(read(join(folder, "package-lock.json")), read(installed));
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
