/** @file Models opened by URL, kept in the origin's private file system for the next time. */
import { QuireError, throwIfAborted } from "../errors.ts";
import { createBlobSource } from "./blobSource.ts";
import type { ByteSource } from "./byteSource.ts";
import { absoluteUrl, openHttpSource } from "./httpSource.ts";
import type { HttpOptions } from "./httpStream.ts";
import { type DownloadProgress, download } from "./modelDownload.ts";
import { sweep } from "./modelFiles.ts";
import { ModelRegistry, type ModelStorage, type StoredFile } from "./modelRegistry.ts";
import { urlName } from "./urlName.ts";

export type { DownloadProgress } from "./modelDownload.ts";

export interface OpenModelOptions extends HttpOptions {
  /** Bytes that are stored; never goes back. A stored model is reported once, as loaded. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** A model in the store, for people who choose what to delete. */
export interface StoredModel {
  readonly url: string;
  /** The server's ETag or else Last-Modified, if it showed one. */
  readonly etag: string | undefined;
  /** Size of the whole file in bytes; undefined if it is not known yet. */
  readonly byteLength: number | undefined;
  readonly storedBytes: number;
  readonly complete: boolean;
  /** Milliseconds since 1970. */
  readonly lastUsed: number;
}

const DIRECTORY = "quire-models";
const STORED_ADVICE =
  "The stored model was deleted or replaced meanwhile: open it again, which downloads what is missing.";

/**
 * Opens a model by URL. A stored one needs no network. Another is downloaded into the store first,
 * from where an earlier download broke off. Where the browser has no store (no OPFS, a private
 * window, not in a dedicated worker) the file is read from the server, range by range.
 *
 * Throws QuireError `storage` if there is no room, with the needed and free bytes and the stored
 * models; `source-read`; `invalid-argument` for what is not a URL; `aborted`.
 */
export async function openModelUrl(
  url: string | URL,
  options: OpenModelOptions = {},
): Promise<ByteSource> {
  const { href } = absoluteUrl(url);
  throwIfAborted(options.signal, `Opening ${urlName(href)}`);
  const store = await openStore();
  if (!store || !canWrite()) return openHttpSource(href, options);
  return withLock(href, options.signal, async () => {
    const stored = await openStored(store, href);
    if (stored) {
      // A full disk refuses this, but only the order of a list hangs on it.
      await store.registry.set({ ...stored.entry, lastUsed: Date.now() }).catch(() => undefined);
      options.onProgress?.({ loaded: stored.source.byteLength, total: stored.source.byteLength });
      return stored.source;
    }
    await sweep(store);
    if (!(await download(store, href, options))) return openHttpSource(href, options);
    const fresh = await openStored(store, href);
    if (fresh) return fresh.source;
    throw new QuireError(
      "storage",
      `${urlName(href)}: the browser deleted the file just stored. Try again.`,
    );
  });
}

/** The models in the store, the most recently used first. Empty where there is no store. */
export async function listModels(): Promise<StoredModel[]> {
  const files = (await (await openStore())?.registry.list()) ?? [];
  const complete = new Set(files.filter((file) => file.complete).map((file) => file.url));
  return files
    .filter((file) => file.complete || !complete.has(file.url))
    .map(({ url, validator, byteLength, storedBytes, complete, lastUsed }) => {
      return { url, etag: validator, byteLength, storedBytes, complete, lastUsed };
    });
}

/**
 * Deletes a model, whole or partial, and tells whether there was one. A page that has it open can
 * no longer read it. Throws QuireError `storage` while it is being downloaded.
 */
export async function deleteModel(url: string | URL): Promise<boolean> {
  const { href } = absoluteUrl(url);
  const store = await openStore();
  if (!store) return false;
  return navigator.locks.request(lockName(href), { ifAvailable: true }, async (lock) => {
    if (!lock) {
      throw new QuireError(
        "storage",
        `${urlName(href)} is being downloaded. Abort that before deleting it.`,
      );
    }
    const { registry } = store;
    const found = (await registry.get(href, "complete")) ?? (await registry.get(href, "partial"));
    await registry.delete(href, "complete");
    await registry.delete(href, "partial");
    await sweep(store);
    return found !== undefined;
  });
}

async function openStore(): Promise<ModelStorage | undefined> {
  try {
    const root = await navigator.storage.getDirectory();
    const directory = await root.getDirectoryHandle(DIRECTORY, { create: true });
    const registry = new ModelRegistry();
    await registry.list();
    return navigator.locks ? { directory, registry } : undefined;
  } catch {
    // Browsers refuse in many ways (no API, insecure page, private window, cookies blocked), and
    // all mean the same here: no store, which openModelUrl does without.
    return undefined;
  }
}

/** Files can be written in place only by a dedicated worker, and not in every browser. */
function canWrite(): boolean {
  return (
    typeof FileSystemFileHandle !== "undefined" &&
    "createSyncAccessHandle" in FileSystemFileHandle.prototype
  );
}

function lockName(href: string): string {
  return `quire-model:${href}`;
}

async function withLock<T>(
  href: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  let started = false;
  try {
    return await navigator.locks.request(lockName(href), signal ? { signal } : {}, () => {
      started = true;
      return work();
    });
  } catch (error) {
    if (!started) throwIfAborted(signal, `Opening ${urlName(href)}`);
    throw error instanceof QuireError ? error : storageFailure(href, error);
  }
}

async function openStored(
  { directory, registry }: ModelStorage,
  href: string,
): Promise<{ readonly source: ByteSource; readonly entry: StoredFile } | undefined> {
  const entry = await registry.get(href, "complete");
  if (!entry) return undefined;
  try {
    const handle = await directory.getFileHandle(entry.file);
    const source = createBlobSource(await handle.getFile(), urlName(href), STORED_ADVICE);
    if (source.byteLength === entry.byteLength) return { source, entry };
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  // The user or the browser cleared the file but not the registry.
  await registry.delete(href, "complete");
  return undefined;
}

function isNotFound(error: unknown): boolean {
  return error instanceof DOMException && error.name === "NotFoundError";
}

function storageFailure(href: string, cause: unknown): QuireError {
  return new QuireError(
    "storage",
    `${urlName(href)}: the browser's store failed. Open the model again; if that fails too, delete it from the store first.`,
    {},
    { cause },
  );
}
