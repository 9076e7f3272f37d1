import { createStore, del, get, set, type UseStore, values } from "idb-keyval";

/** What the store knows about one file in OPFS. */
export interface StoredFile {
  readonly url: string;
  /** Its name in the store's OPFS folder. */
  readonly file: string;
  /** ETag or Last-Modified of the server's file, if shown. */
  readonly validator: string | undefined;
  /** Size of the whole file; undefined while the server has not said it. */
  readonly byteLength: number | undefined;
  /** Bytes that are safely on disk. */
  readonly storedBytes: number;
  /** An incomplete file is resumed, never used. */
  readonly complete: boolean;
  /** Milliseconds since 1970. */
  readonly lastUsed: number;
}

/**
 * The stored files by URL, in IndexedDB. A URL has at most one complete file and one that is being
 * downloaded, which replaces the other when it is whole.
 */
export class ModelRegistry {
  readonly #store: UseStore = createStore("quire-models", "files");

  get(url: string, state: "complete" | "partial"): Promise<StoredFile | undefined> {
    return get<StoredFile>([url, state], this.#store);
  }

  set(file: StoredFile): Promise<void> {
    return set([file.url, file.complete ? "complete" : "partial"], file, this.#store);
  }

  delete(url: string, state: "complete" | "partial"): Promise<void> {
    return del([url, state], this.#store);
  }

  /** All files, the most recently used first. */
  async list(): Promise<StoredFile[]> {
    const files = await values<StoredFile>(this.#store);
    return files.sort((a, b) => b.lastUsed - a.lastUsed);
  }
}

/** Where models are kept: files in OPFS and the registry that names them. */
export interface ModelStorage {
  readonly directory: FileSystemDirectoryHandle;
  readonly registry: ModelRegistry;
}
