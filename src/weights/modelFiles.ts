/** @file The store's files in OPFS: opening one for writing, and sweeping what no entry names. */
import type { ModelStorage } from "./modelRegistry.ts";

/** TypeScript's DOM library leaves out what only workers have. */
export interface SyncAccessHandle {
  getSize(): number;
  write(bytes: Uint8Array<ArrayBuffer>, options: { readonly at: number }): number;
  truncate(byteLength: number): void;
  flush(): void;
  close(): void;
}

interface WritableFile extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<SyncAccessHandle>;
}

/**
 * One lock for the whole store. A sweep of another page must see neither a file whose entry it read
 * too early to know, nor one that is not open yet: an open one cannot be removed.
 */
const LOCK = "quire-model-files";

/**
 * Opens the file `name`, made if it is not there, for writing; `enter` writes its entry where it has
 * none. Undefined if the browser lets us write no file.
 */
export async function openForWriting(
  directory: FileSystemDirectoryHandle,
  name: string,
  enter: () => Promise<void>,
): Promise<SyncAccessHandle | undefined> {
  return navigator.locks.request(LOCK, { mode: "shared" }, async () => {
    await enter();
    const file = (await directory.getFileHandle(name, { create: true })) as WritableFile;
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if (isQuotaExceeded(error)) throw error;
      return undefined;
    }
  });
}

/** Removes files that no entry names: what a crash or a replaced model left. */
export async function sweep({ directory, registry }: ModelStorage): Promise<void> {
  return navigator.locks.request(LOCK, async () => {
    const named = new Set((await registry.list()).map((entry) => entry.file));
    for await (const name of directory.keys()) {
      if (named.has(name)) continue;
      // One that is in use stays until the next sweep.
      await directory.removeEntry(name).catch(() => undefined);
    }
  });
}

/** Whether the browser refused something for lack of room. */
export function isQuotaExceeded(error: unknown): boolean {
  return error instanceof DOMException && error.name === "QuotaExceededError";
}
