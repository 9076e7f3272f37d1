import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's root folder, absolute, without a slash at its end. */
export const root = fileURLToPath(new URL("../..", import.meta.url)).replace(/[\\/]$/, "");

/** Absolute path of something in the repository. @param {string} path */
export function inRoot(path) {
  return `${root}/${path}`;
}

/**
 * Absolute path of a file that the user names. npm runs every script in the root, wherever it was
 * called, and says in INIT_CWD where that was.
 * @param {string} path
 */
export function userPath(path) {
  const called = process.cwd() === resolve(root) ? process.env["INIT_CWD"] : undefined;
  return resolve(called ?? "", path);
}
