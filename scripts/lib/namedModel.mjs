import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileSha256 } from "./digest.mjs";
import { download, remoteVersion } from "./download.mjs";
import { messageOf, SetupError, UsageError } from "./errors.mjs";
import { withLock } from "./lock.mjs";
import { modelsLock } from "./model.mjs";
import { inRoot, userPath } from "./paths.mjs";
import { say } from "./progress.mjs";

/** @typedef {import("./model.mjs").LocalModel} LocalModel */

/**
 * What `--model` names.
 * @typedef {object} NamedModel
 * @property {string} value as it was given
 * @property {"file" | "url"} kind
 * @property {string} name file name
 */

/**
 * Reads a `--model` value. Throws a UsageError for a URL that is none and a SetupError for a file that
 * is not there, both before anything is installed or built for it.
 * @param {string} value
 * @returns {NamedModel}
 */
export function readModelFlag(value) {
  if (/^https?:/i.test(value)) return { value, kind: "url", name: urlFileName(value) };
  const path = userPath(value);
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
    const message = `--model ${value}: there is no such file. It takes a GGUF file or its URL.`;
    throw new SetupError("source-read", message);
  }
  return { value, kind: "file", name: basename(path) };
}

/** @param {string} value */
function urlFileName(value) {
  try {
    return decodeURIComponent(basename(new URL(value).pathname)) || "model.gguf";
  } catch (error) {
    throw new UsageError(
      `--model ${value} is no URL of a file (${messageOf(error)}). ` +
        "Valid: a GGUF file or its URL, such as https://example.org/model.gguf.",
    );
  }
}

/**
 * The file that `--model` names. A URL is downloaded into `models/` once and again only when the
 * server says that it changed.
 * @param {NamedModel} model
 * @param {string} [folder]
 * @returns {Promise<LocalModel>}
 */
export async function ensureNamedModel({ value, kind, name }, folder = inRoot("models")) {
  if (kind === "url") {
    return withLock(modelsLock(folder), "fetches a model", () => fetchUrl(value, name, folder));
  }
  const path = userPath(value);
  return { path, name, bytes: statSync(path).size, sha256: await fileSha256(path) };
}

/**
 * @param {string} url
 * @param {string} name
 * @param {string} folder
 * @returns {Promise<LocalModel>}
 */
async function fetchUrl(url, name, folder) {
  const key = createHash("sha256").update(url).digest("hex").slice(0, 12);
  const path = join(folder, `${key}-${name.replace(/[^\w.+-]/g, "_")}`);
  const note = `${path}.json`;
  const known = existsSync(path) ? readNote(note) : undefined;
  if (known !== undefined) {
    const version = await remoteVersion(url);
    if (version === null) {
      say(`${url} cannot be asked for its version: the copy in models/ is used.`);
    }
    if (version === null || version === known.etag) {
      return { path, name, bytes: known.bytes, sha256: known.sha256 };
    }
  }
  try {
    const { bytes, sha256, etag } = await download(url, path, { label: name });
    writeFileSync(note, JSON.stringify({ url, bytes, sha256, etag }));
    return { path, name, bytes, sha256 };
  } catch (error) {
    const message = `--model ${url} could not be fetched: ${messageOf(error)}`;
    throw new SetupError("model-download", message, { cause: error });
  }
}

/**
 * What is known of a fetched file; undefined where that is not known, as after a kill at the wrong moment.
 * @param {string} note
 * @returns {{ bytes: number, sha256: string, etag: string | null } | undefined}
 */
function readNote(note) {
  try {
    return JSON.parse(readFileSync(note, "utf8"));
  } catch {
    return undefined;
  }
}
