// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file Imports the repository's TypeScript in Node, through vite. */
import { fileURLToPath } from "node:url";
import { runnerImport } from "vite";

/** The module at a path relative to the repository's root. */
export async function importTypeScript(path) {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const { module } = await runnerImport(`${root}${path}`, {
    root,
    configFile: false,
    logLevel: "error",
  });
  return module;
}
