import { pathToFileURL } from "node:url";
import { inRoot } from "../lib/paths.mjs";

const FOLDER = ".cache/lab/bundle";

/**
 * Bundles `src/lab` for Node, which runs no TypeScript, and loads it.
 * @returns {Promise<{ file: string, module: typeof import("../../src/lab/lab.ts") }>}
 */
export async function bundleLab() {
  // Here and not above: the command installs vite first.
  const { build } = await import("vite");
  await build({
    configFile: false,
    root: inRoot("."),
    logLevel: "error",
    publicDir: false,
    build: {
      ssr: inRoot("src/lab/lab.ts"),
      outDir: inRoot(FOLDER),
      emptyOutDir: true,
      target: "node20",
      minify: false,
      rolldownOptions: { output: { entryFileNames: "lab.mjs" } },
    },
  });
  const file = inRoot(`${FOLDER}/lab.mjs`);
  return { file, module: await import(pathToFileURL(file).href) };
}
