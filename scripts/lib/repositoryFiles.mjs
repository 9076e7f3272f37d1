import { readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { capture } from "./command.mjs";
import { listFiles } from "./stamp.mjs";

/**
 * The project's own files: those that git has or would take. Where git does not say (there is none,
 * an unpacked archive, somebody else's clone) all but what .gitignore names.
 * @param {string} base
 * @returns {Promise<string[]>} relative to the base
 */
export async function repositoryFiles(base) {
  const args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const git = await capture("git", args, { cwd: base }).catch(() => undefined);
  if (git?.code === 0) return git.stdout.split("\0").filter((name) => name !== "");
  const patterns = readFileSync(join(base, ".gitignore"), "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  return listFiles(base)
    .map((path) => relative(base, path).split(sep).join("/"))
    .filter((path) => !patterns.some((pattern) => isIgnored(path, pattern)));
}

/** The kinds of patterns that our .gitignore has: `folder/`, `*.ending`, `name`. @param {string} path @param {string} pattern */
function isIgnored(path, pattern) {
  if (pattern.startsWith("*")) return path.endsWith(pattern.slice(1));
  return `/${path}/`.includes(`/${pattern.replace(/\/$/, "")}/`);
}
