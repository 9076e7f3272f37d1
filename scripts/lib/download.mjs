import { createHash } from "node:crypto";
import { createWriteStream, existsSync, renameSync, rmSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createProgress, say } from "./progress.mjs";
import { beforeEnd } from "./signals.mjs";

/** A server that has not answered by then counts as out of reach. */
const CONNECT_TIMEOUT_MS = 20_000;
/** A transfer with no byte for this long counts as dropped. */
const STALL_TIMEOUT_MS = 60_000;

/** No answer at all: the server's other files will not answer either. */
export class UnreachableError extends Error {}

/**
 * Writes a stream to a file: under a temporary name in the same folder, renamed when it is whole and
 * its size and digest are as expected; removed otherwise. With `keepOld` a file that is there already
 * gets another name.
 * @param {AsyncIterable<Uint8Array>} source
 * @param {string} path
 * @param {{ label: string, bytes?: number, sha256?: string, onBytes?: () => void, quiet?: boolean, keepOld?: boolean }} expected
 * @returns {Promise<{ bytes: number, sha256: string }>}
 */
export async function writeWhole(source, path, expected) {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.part`;
  const forget = beforeEnd(() => rmSync(temporary, { force: true }));
  const hash = createHash("sha256");
  const progress = expected.quiet ? undefined : createProgress(expected.label, expected.bytes ?? 0);
  let bytes = 0;
  const meter = new Transform({
    transform(chunk, _encoding, done) {
      bytes += chunk.length;
      hash.update(chunk);
      progress?.update(bytes);
      expected.onBytes?.();
      done(null, chunk);
    },
  });
  try {
    await pipeline(source, meter, createWriteStream(temporary));
    if (expected.bytes !== undefined && bytes !== expected.bytes) {
      throw new Error(`${expected.label}: ${bytes} bytes came instead of ${expected.bytes}.`);
    }
    const sha256 = hash.digest("hex");
    if (expected.sha256 !== undefined && sha256 !== expected.sha256) {
      throw new Error(
        `${expected.label}: the bytes have SHA-256 ${sha256} instead of ${expected.sha256}.`,
      );
    }
    if (expected.keepOld) setAside(path);
    await rename(temporary, path);
    return { bytes, sha256 };
  } finally {
    progress?.end();
    forget();
    await rm(temporary, { force: true });
  }
}

/** Gives a file that somebody put there a name that is free. @param {string} path */
function setAside(path) {
  if (!existsSync(path)) return;
  let number = 1;
  while (existsSync(`${path}.old${number}`)) number += 1;
  renameSync(path, `${path}.old${number}`);
  say(`The ${basename(path)} that was there is now ${basename(path)}.old${number}.`);
}

/**
 * Downloads a file over HTTP.
 * @param {string} url
 * @param {string} path
 * @param {{ label: string, bytes?: number, sha256?: string, keepOld?: boolean }} expected
 * @returns {Promise<{ bytes: number, sha256: string, etag: string | null }>}
 */
export async function download(url, path, expected) {
  const controller = new AbortController();
  const fail = () => controller.abort(new Error(`${url} sent nothing for too long.`));
  let timer = setTimeout(fail, CONNECT_TIMEOUT_MS);
  try {
    const response = await fetch(url, { signal: controller.signal, redirect: "follow" }).catch(
      (cause) => {
        throw new UnreachableError(`${url} does not answer.`, { cause: cause.cause ?? cause });
      },
    );
    if (!response.ok || response.body === null) {
      throw new Error(`${url} answered with HTTP status ${response.status}.`);
    }
    const length = Number(response.headers.get("content-length") ?? 0);
    const encoded = response.headers.get("content-encoding") !== null;
    const known = expected.bytes ?? (length > 0 && !encoded ? length : undefined);
    const result = await writeWhole(response.body, path, {
      ...expected,
      ...(known === undefined ? {} : { bytes: known }),
      onBytes: () => {
        clearTimeout(timer);
        timer = setTimeout(fail, STALL_TIMEOUT_MS);
      },
    });
    return { ...result, etag: versionOf(response.headers) };
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What tells one version of a URL's file from another, without loading it; null where the server
 * cannot be asked.
 * @param {string} url
 */
export async function remoteVersion(url) {
  try {
    const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS);
    const response = await fetch(url, { method: "HEAD", signal });
    return response.ok ? versionOf(response.headers) : null;
  } catch {
    return null;
  }
}

/** @param {Headers} headers */
function versionOf(headers) {
  // The length only where there is nothing better: some servers leave it out of a HEAD's answer.
  return headers.get("etag") ?? headers.get("last-modified") ?? headers.get("content-length");
}
