import { existsSync } from "node:fs";
import { run } from "./command.mjs";
import { SetupError } from "./errors.mjs";
import { inRoot, root } from "./paths.mjs";
import { say } from "./progress.mjs";
import { contentStamp, listFiles, readStamp, writeStamp } from "./stamp.mjs";

/**
 * One thing that an npm script builds.
 * @typedef {object} Build
 * @property {string} name what it is, for messages
 * @property {string} script the npm script
 * @property {readonly string[]} sources files and folders, relative to the root
 * @property {readonly string[]} outputs files that must be there afterwards
 */

const SETTINGS = ["package.json", "package-lock.json", "tsconfig.json", "tsconfig.build.json"];

/** @type {Build} */
const LIBRARY = {
  name: "library",
  script: "build",
  sources: [
    "src",
    "shaders",
    "vite.config.ts",
    "scripts/types.mjs",
    "scripts/lib/wasmKernels.mjs",
    ...SETTINGS,
  ],
  outputs: ["dist/index.js", "dist/worker.js", "dist/global.js", "dist/types/index.d.ts"],
};

/** @type {Build} */
const DEMO = {
  name: "demo",
  script: "build:demo",
  sources: ["demo", "public", ...LIBRARY.sources],
  outputs: ["demo/dist/index.html"],
};

/** Where the built demo lies. */
export const DEMO_FOLDER = inRoot("demo/dist");

/** Builds `dist/` unless it was built from exactly these sources. */
export function ensureLibrary() {
  return ensureBuilt(LIBRARY);
}

/** Builds the demo (and the library, which it uses). */
export async function ensureDemo() {
  await ensureLibrary();
  await ensureBuilt(DEMO);
}

/** @param {Build} build */
async function ensureBuilt(build) {
  const files = build.sources.flatMap((source) => listFiles(inRoot(source)));
  const stamp = contentStamp(root, files);
  const stampFile = inRoot(`.cache/${build.name}.stamp`);
  const missing = () => build.outputs.filter((output) => !existsSync(inRoot(output)));
  if (readStamp(stampFile) === stamp && missing().length === 0) return;
  say(`Building the ${build.name} (npm run ${build.script})`);
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const code = await run(npm, ["run", "--silent", build.script]);
  if (code !== 0) {
    throw new SetupError("setup-build", `npm run ${build.script} failed with exit code ${code}.`);
  }
  if (missing().length > 0) {
    const names = missing().join(", ");
    throw new SetupError("setup-build", `npm run ${build.script} ended well but left no ${names}.`);
  }
  writeStamp(stampFile, stamp);
}
