import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { deleteModel, listModels, type OpenModelOptions, openModelUrl } from "./modelStore.ts";
import { createFakeStorage, type FakeStorage } from "./testing/fakeStorage.ts";

// The store's dealings with a full disk and with other pages. e2e/browser/modelStore.test.ts has a
// real browser's.

const URL_A = "https://models.example/a.gguf?token=secret-a";
const URL_B = "https://models.example/b.gguf?token=secret-b";
const FILE = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7) & 255);

const current = vi.hoisted(() => ({ storage: undefined as unknown }));
vi.mock("idb-keyval", () => {
  const call =
    (name: string) =>
    (...args: unknown[]) => {
      const { keyValueStore } = current.storage as FakeStorage;
      return Reflect.get(keyValueStore, name)(...args);
    };
  return Object.fromEntries(
    ["createStore", "get", "set", "del", "values"].map((n) => [n, call(n)]),
  );
});

let storage: FakeStorage;
let requests: string[];
beforeEach(() => {
  storage = createFakeStorage();
  current.storage = storage;
  requests = [];
  vi.stubGlobal("navigator", storage.navigator);
  vi.stubGlobal("FileSystemFileHandle", storage.FileHandle);
});
afterEach(() => {
  vi.unstubAllGlobals();
});

const serve: typeof fetch = async (url, init) => {
  requests.push(String(url));
  const range = new Headers(init?.headers).get("range");
  const start = Number(/\d+/.exec(range ?? "")?.[0] ?? 0);
  const headers = {
    etag: '"1"',
    "content-length": `${FILE.length - start}`,
    ...(range && { "content-range": `bytes ${start}-${FILE.length - 1}/${FILE.length}` }),
  };
  return new Response(FILE.subarray(start), { status: range ? 206 : 200, headers });
};

const open = (url: string, options: OpenModelOptions = {}) =>
  openModelUrl(url, { fetch: serve, retryDelaysMs: [], ...options });

it("opens a stored model on a full disk", async () => {
  await open(URL_A);
  storage.entriesRefused = true;
  const source = await open(URL_A);
  expect(Buffer.compare(await source.read(0, FILE.length), FILE)).toBe(0);
  expect(requests).toHaveLength(1);
});

it("names needed and free bytes when neither file nor entry can be written any more", async () => {
  await open(URL_B);
  storage.quotaBytes = 5_000_000;
  // The estimate says that there is room, as Chromium's may, until there is none.
  const room = vi.spyOn(Reflect.get(storage.navigator, "storage"), "estimate");
  room.mockResolvedValueOnce({ quota: 2 ** 40, usage: 0 });
  const opening = open(URL_A, {
    onProgress: ({ loaded }) => {
      if (loaded > 0) storage.entriesRefused = true;
    },
  });
  await expect(opening).rejects.toMatchObject({
    code: "storage",
    message: expect.stringMatching(/no room for \d+ bytes.*b\.gguf \(3000000 bytes\)/),
    data: { needed: expect.any(Number), free: expect.any(Number), models: JSON.stringify([URL_B]) },
  });
});

it("keeps secrets in the query out of its messages", async () => {
  const messages: string[] = [];
  const fails = async (run: Promise<unknown>) => {
    const error = await run.then(
      () => expect.unreachable(),
      (error: Error) => error,
    );
    messages.push(error.message);
  };
  await open(URL_B);
  storage.quotaBytes = FILE.length;
  await fails(open(URL_A)); // no room
  storage.entriesRefused = true;
  storage.quotaBytes = 2 ** 30;
  await fails(open(URL_A));
  storage.entriesRefused = false;
  await fails(open(URL_A, { signal: AbortSignal.abort() }));
  let whileDownloading: Promise<void> | undefined;
  storage.beforeOpen = async () => {
    whileDownloading ??= fails(deleteModel(URL_A));
    await whileDownloading;
  };
  await open(URL_A);
  const getDirectory = vi.spyOn(Reflect.get(storage.navigator, "storage"), "getDirectory");
  const broken = { getFileHandle: () => Promise.reject(new DOMException("?", "UnknownError")) };
  getDirectory.mockResolvedValueOnce({ getDirectoryHandle: async () => broken });
  await fails(open(URL_A)); // the browser's store fails
  expect(messages).toHaveLength(5);
  for (const message of messages) expect(message).toMatch(/\/a\.gguf(?!\?)/);
  expect(messages.join()).not.toContain("secret");
});

it("says what to do when a stored model is deleted while it is read", async () => {
  const source = await open(URL_A);
  await deleteModel(URL_A);
  const error = await source.read(0, 10).catch((error: Error) => error);
  expect(error).toMatchObject({ code: "source-read", cause: { name: "NotFoundError" } });
  expect((error as Error).message).toMatch(/stored model was deleted .* open it again/);
  expect((error as Error).message).not.toMatch(/choose|secret/);
});

it("does not sweep away the file that another page is about to open", async () => {
  // While this page waits for the server, another one's sweep reads the entries. Then this page makes
  // its file. Without a lock that is between the two, each gets as far as it needs to for the harm.
  const soon = (done: () => boolean) =>
    vi.waitFor(() => expect(done()).toBe(true), { timeout: 200, interval: 5 }).catch(() => {});
  let other: Promise<unknown> | undefined;
  let isSweeping = false;
  storage.beforeSweep = async () => {
    if (!other || isSweeping) return;
    isSweeping = true;
    await soon(() => storage.files.size > 0);
  };
  let numOpened = 0;
  storage.beforeOpen = async () => {
    if (numOpened++ === 0) await soon(() => storage.files.size === 0);
  };
  const fetchLate: typeof fetch = async (...request) => {
    other ??= open(URL_B);
    await vi.waitFor(() => expect(isSweeping).toBe(true));
    return serve(...request);
  };
  await open(URL_A, { fetch: fetchLate });
  await other;
  expect((await listModels()).map(({ url, complete }) => [url, complete])).toEqual(
    expect.arrayContaining([
      [URL_A, true],
      [URL_B, true],
    ]),
  );
});
