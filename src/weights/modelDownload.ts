import { QuireError } from "../errors.ts";
import { type HttpOptions, HttpStream } from "./httpStream.ts";
import { isQuotaExceeded, openForWriting, type SyncAccessHandle } from "./modelFiles.ts";
import type { ModelRegistry, ModelStorage, StoredFile } from "./modelRegistry.ts";
import { urlName } from "./urlName.ts";

/** How far a download is, in bytes. */
export interface DownloadProgress {
  readonly loaded: number;
  /** Undefined if the server does not say the size. */
  readonly total: number | undefined;
}

interface DownloadOptions extends HttpOptions {
  readonly onProgress?: (progress: DownloadProgress) => void;
}

const WRITE_BYTES = 1024 * 1024;
/** How much of a download a crash of the browser may cost. */
const FLUSH_BYTES = 16 * 1024 * 1024;
const PROGRESS_BYTES = 512 * 1024;
/** How often a file may change on the server during one download. */
const MAX_RESTARTS = 2;

/**
 * Downloads a URL into the store, going on where an earlier download of the same file ended. The
 * caller holds the URL's lock. Returns false if the browser lets us write no file. On true the
 * registry has the complete entry; if it throws, a partial one that says what was stored.
 */
export async function download(
  storage: ModelStorage,
  url: string,
  options: DownloadOptions,
): Promise<boolean> {
  const report = monotonic(options.onProgress);
  for (let restarts = 0; ; restarts++) {
    try {
      return await downloadOnce(storage, url, options, report);
    } catch (error) {
      // The next round finds another validator or size than the partial entry's and starts anew.
      const changed = error instanceof QuireError && error.data.changed === true;
      if (!changed || restarts === MAX_RESTARTS) throw error;
    }
  }
}

async function downloadOnce(
  { directory, registry }: ModelStorage,
  url: string,
  options: DownloadOptions,
  report: (progress: DownloadProgress) => void,
): Promise<boolean> {
  const previous = await registry.get(url, "partial");
  const stream = await openStream(url, previous, options);
  const { validator, byteLength } = stream;
  const file = previous?.file ?? crypto.randomUUID();
  let handle: SyncAccessHandle | undefined;
  let written = 0;
  const save = (complete: boolean) =>
    registry.set({
      ...{ url, file, validator, complete, lastUsed: Date.now() },
      byteLength: complete ? written : byteLength,
      storedBytes: written,
    });
  try {
    handle = await openForWriting(directory, file, async () => {
      if (!previous) await save(false);
    });
    if (!handle) return false;
    if (!isSameFile(stream, previous) || handle.getSize() < stream.position) stream.seek(0);
    written = stream.position;
    await save(false);
    handle.truncate(written);
    await checkRoom(registry, url, byteLength, written);

    let flushed = written;
    report({ loaded: written, total: byteLength });
    for (;;) {
      const bytes = await stream.read(WRITE_BYTES, options.signal);
      if (!bytes) break;
      // A full disk makes Chromium return a short or absurd count where others throw.
      if (handle.write(bytes, { at: written }) !== bytes.length) {
        throw await noRoom(registry, url, byteLength, written);
      }
      written = stream.position;
      report({ loaded: written, total: stream.byteLength });
      if (written - flushed >= FLUSH_BYTES) {
        handle.flush();
        flushed = written;
        await save(false);
      }
    }
    handle.flush();
    await save(true);
    await registry.delete(url, "partial");
    return true;
  } catch (error) {
    // A full disk refuses this as well: then the entry keeps what it knew to be stored.
    if (handle && canFlush(handle)) await save(false).catch(() => undefined);
    if (isQuotaExceeded(error)) throw await noRoom(registry, url, byteLength, written, error);
    throw error;
  } finally {
    handle?.close();
    stream.close();
  }
}

/** Opens the URL where the partial file ends. */
async function openStream(
  url: string,
  previous: StoredFile | undefined,
  options: HttpOptions,
): Promise<HttpStream> {
  // One byte at least is asked for again: a range that starts at the end is an error.
  const position = Math.min(previous?.storedBytes ?? 0, (previous?.byteLength ?? 1) - 1);
  try {
    return await HttpStream.open(new URL(url), position, options);
  } catch (error) {
    const outside = error instanceof QuireError && error.data.status === 416;
    if (!outside || position === 0) throw error;
    return HttpStream.open(new URL(url), 0, options);
  }
}

/** Without a validator two files of the same size cannot be told apart. */
function isSameFile(stream: HttpStream, previous: StoredFile | undefined): boolean {
  return (
    previous !== undefined &&
    stream.validator !== undefined &&
    stream.validator === previous.validator &&
    stream.byteLength === previous.byteLength
  );
}

/** Whether all that was written is on disk. */
function canFlush(handle: SyncAccessHandle): boolean {
  try {
    handle.flush();
    return true;
  } catch {
    return false;
  }
}

async function checkRoom(
  registry: ModelRegistry,
  url: string,
  byteLength: number | undefined,
  written: number,
): Promise<void> {
  const free = await freeBytes();
  if (byteLength !== undefined && free !== undefined && byteLength - written > free) {
    throw await noRoom(registry, url, byteLength, written);
  }
}

async function noRoom(
  registry: ModelRegistry,
  url: string,
  byteLength: number | undefined,
  written: number,
  cause?: unknown,
): Promise<QuireError> {
  // A hint only: Chromium tells every page the same free space, to give nothing away.
  const free = (await freeBytes()) ?? null;
  const needed = byteLength === undefined ? null : byteLength - written;
  const stored = (await registry.list()).filter((file) => file.complete);
  const models = stored
    .map((file) => `${urlName(file.url)} (${file.storedBytes} bytes)`)
    .join(", ");
  return new QuireError(
    "storage",
    `${urlName(url)}: there is no room for ${needed ?? "more"} bytes; the browser counts ${free ?? "too few"} as free. Delete a stored model or free disk space. Stored: ${models || "none"}.`,
    // Programs get whole URLs, which deleteModel takes.
    { needed, free, models: JSON.stringify(stored.map((file) => file.url)) },
    { cause },
  );
}

async function freeBytes(): Promise<number | undefined> {
  const { quota, usage } = await navigator.storage.estimate();
  return quota === undefined || usage === undefined ? undefined : Math.max(0, quota - usage);
}

/** Passes on progress that goes forward by a worthwhile step, and the last. */
function monotonic(
  onProgress: DownloadOptions["onProgress"],
): (progress: DownloadProgress) => void {
  let reported = Number.NEGATIVE_INFINITY;
  return (progress) => {
    const { loaded, total } = progress;
    const step = loaded === total ? 1 : PROGRESS_BYTES;
    if (loaded < reported + step) return;
    reported = loaded;
    onProgress?.(progress);
  };
}
