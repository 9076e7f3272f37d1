import { fileURLToPath } from "node:url";

/** The repository's root folder, absolute, without a slash at its end. */
export const root = fileURLToPath(new URL("../..", import.meta.url)).replace(/[\\/]$/, "");

/** Absolute path of something in the repository. @param {string} path */
export function inRoot(path) {
  return `${root}/${path}`;
}
