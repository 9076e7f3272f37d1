import { existsSync } from "node:fs";
import { join } from "node:path";
import { run } from "./command.mjs";
import { SetupError } from "./errors.mjs";
import { withLock } from "./lock.mjs";
import { inRoot, root } from "./paths.mjs";
import { say } from "./progress.mjs";
import { contentStamp, listFiles, readStamp, writeStamp } from "./stamp.mjs";

/**
 * One thing that an npm script builds.
 * @typedef {object} Build
 * @property {string} name what it is, for messages
 * @property {string} script the npm script
 * @property {readonly string[]} sources files and folders, relative to the root
 * @property {string} folder what it makes is there, and nothing else
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
  folder: "dist",
  outputs: ["dist/index.js", "dist/worker.js", "dist/global.js", "dist/types/index.d.ts"],
};

/** @type {Build} */
const DEMO = {
  name: "demo",
  script: "build:demo",
  sources: ["demo", "public", ...LIBRARY.sources],
  folder: "demo/dist",
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

/**
 * Builds unless what is there was built from exactly these sources and nobody, not even another
 * build, has changed it since.
 * @param {Build} build
 * @param {string} [base] the project's folder
 */
export async function ensureBuilt(build, base = root) {
  const digest = (/** @type {readonly string[]} */ paths) =>
    contentStamp(
      base,
      paths.flatMap((path) => listFiles(join(base, path))),
    );
  const stampFile = join(base, `.cache/${build.name}.stamp`);
  const stampOf = (/** @type {string} */ sources) => `${sources} ${digest([build.folder])}`;
  const isCurrent = () => readStamp(stampFile) === stampOf(digest(build.sources));
  if (isCurrent()) return;
  await withLock(join(base, `.cache/locks/${build.name}`), `builds the ${build.name}`, async () => {
    if (isCurrent()) return;
    say(`Building the ${build.name} (npm run ${build.script})`);
    const sources = digest(build.sources);
    const npm = process.platform === "win32" ? "npm.cmd" : "npm";
    const code = await run(npm, ["run", "--silent", build.script], { cwd: base });
    if (code !== 0) {
      throw new SetupError("setup-build", `npm run ${build.script} failed with exit code ${code}.`);
    }
    const missing = build.outputs.filter((output) => !existsSync(join(base, output))).join(", ");
    if (missing !== "") {
      const message = `npm run ${build.script} ended well but left no ${missing}.`;
      throw new SetupError("setup-build", message);
    }
    writeStamp(stampFile, stampOf(sources));
  });
}
