/** @file What the model store needs of a browser, in memory, with faults that tests switch on. */

/** What may go wrong, or wait. */
interface StorageFaults {
  /** Whether IndexedDB has no room for an entry. */
  entriesRefused: boolean;
  /** Room for all files together. */
  quotaBytes: number;
  beforeSweep: () => Promise<void>;
  /** Runs between the making of a file and its opening. */
  beforeOpen: () => Promise<void>;
}

export interface FakeStorage extends StorageFaults {
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Instead of globalThis.navigator. */
  readonly navigator: object;
  /** Instead of globalThis.FileSystemFileHandle. */
  readonly FileHandle: unknown;
  /** Instead of the package idb-keyval. */
  readonly keyValueStore: object;
}

const quotaExceeded = (): DOMException => new DOMException("full", "QuotaExceededError");
const notFound = (): DOMException => new DOMException("no such file", "NotFoundError");

export function createFakeStorage(): FakeStorage {
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  const open = new Set<string>();
  const entries = new Map<string, unknown>();
  const faults: StorageFaults = {
    entriesRefused: false,
    quotaBytes: 2 ** 30,
    beforeSweep: async () => {},
    beforeOpen: async () => {},
  };
  const usage = () => [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0);

  class FileHandle {
    readonly name: string;

    constructor(name: string) {
      this.name = name;
    }

    async getFile(): Promise<Blob> {
      return snapshot(files, this.name);
    }

    async createSyncAccessHandle(): Promise<object> {
      const { name } = this;
      await faults.beforeOpen();
      if (!files.has(name)) throw notFound();
      open.add(name);
      const resize = (byteLength: number): void => {
        if (usage() - files.get(name)!.length + byteLength > faults.quotaBytes) {
          throw quotaExceeded();
        }
        const grown = new Uint8Array(byteLength);
        grown.set(files.get(name)!.subarray(0, byteLength));
        files.set(name, grown);
      };
      return {
        getSize: () => files.get(name)!.length,
        truncate: resize,
        flush: () => {},
        close: () => open.delete(name),
        write(bytes: Uint8Array, { at }: { at: number }): number {
          resize(Math.max(files.get(name)!.length, at + bytes.length));
          files.get(name)!.set(bytes, at);
          return bytes.length;
        },
      };
    }
  }

  const directory = {
    async getFileHandle(name: string, { create = false } = {}): Promise<FileHandle> {
      if (!files.has(name) && !create) throw notFound();
      if (!files.has(name)) files.set(name, new Uint8Array(0));
      return new FileHandle(name);
    },
    async *keys(): AsyncGenerator<string> {
      await faults.beforeSweep();
      yield* [...files.keys()];
    },
    async removeEntry(name: string): Promise<void> {
      if (open.has(name)) throw new DOMException("open", "NoModificationAllowedError");
      files.delete(name);
    },
  };

  return Object.assign(faults, {
    files,
    FileHandle,
    navigator: {
      storage: {
        getDirectory: async () => ({ getDirectoryHandle: async () => directory }),
        estimate: async () => ({ quota: faults.quotaBytes, usage: usage() }),
      },
      locks: createLocks(),
    },
    keyValueStore: {
      createStore: () => undefined,
      get: async (key: unknown) => entries.get(String(key)),
      set: async (key: unknown, value: unknown) => {
        if (faults.entriesRefused) throw quotaExceeded();
        entries.set(String(key), value);
      },
      del: async (key: unknown) => void entries.delete(String(key)),
      values: async () => [...entries.values()],
    },
  });
}

/** The file as it is; reading fails when it is gone. */
function snapshot(files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>, name: string): Blob {
  const blob = new Blob([files.get(name)!]);
  const slice = blob.slice.bind(blob);
  blob.slice = (start, end) => {
    const piece = slice(start, end);
    if (!files.has(name)) piece.arrayBuffer = () => Promise.reject(notFound());
    return piece;
  };
  return blob;
}

interface LockOptions {
  readonly mode?: "shared" | "exclusive";
  readonly ifAvailable?: boolean;
}

/** Web Locks: first come, first served, and shared ones together. */
function createLocks(): object {
  const held = new Map<string, { readonly mode: string; readonly ended: Promise<unknown> }[]>();
  return {
    async request(name: string, ...rest: unknown[]): Promise<unknown> {
      const work = rest.pop() as (lock: object | null) => Promise<unknown>;
      const { mode = "exclusive", ifAvailable = false } = (rest[0] ?? {}) as LockOptions;
      const queue = held.get(name) ?? [];
      held.set(name, queue);
      const inTheWay = queue.filter((other) => mode === "exclusive" || other.mode === "exclusive");
      if (ifAvailable && inTheWay.length > 0) return work(null);
      const result = Promise.all(inTheWay.map((other) => other.ended)).then(() => work({ name }));
      const entry = { mode, ended: result.catch(() => undefined) };
      queue.push(entry);
      void entry.ended.then(() => queue.splice(queue.indexOf(entry), 1));
      return result;
    },
  };
}
