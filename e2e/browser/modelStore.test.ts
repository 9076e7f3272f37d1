import { createHash, randomBytes } from "node:crypto";
import type { BrowserContext, Page } from "playwright";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { ensureBrowser, launchBrowser } from "../../scripts/lib/browsers.mjs";
import type { StoredModel } from "../../src/weights/modelStore.ts";
import {
  type FileServer,
  type FileServerBehaviour,
  startFileServer,
} from "../../src/weights/testing/fileServer.ts";
import type { Call, Opened, OpenRequest, Outcome } from "./modelStore.worker.ts";
import { openSources, type Sources } from "./sources.ts";

// The store of a real browser, in a worker, from a server of another origin that misbehaves.

const MIB = 1024 * 1024;
const FILE = randomBytes(5 * MIB + 3);
const OTHER = randomBytes(5 * MIB + 3);

let browser: Awaited<ReturnType<typeof launchBrowser>>;
let sources: Sources;
let context: BrowserContext;
let server: FileServer;

beforeAll(async () => {
  sources = await openSources();
  browser = await launchBrowser("chromium", await ensureBrowser("chromium"), undefined);
});

afterAll(async () => {
  await browser?.close();
  await sources?.close();
});

beforeEach(async () => {
  // A context has a storage of its own.
  context = await browser.browser.newContext();
});

afterEach(async () => {
  await context.close();
  await server.close();
});

async function serve(behaviour: Partial<FileServerBehaviour> = {}, bytes = FILE): Promise<string> {
  server = await startFileServer(bytes, behaviour);
  return server.url;
}

async function newPage(): Promise<Page> {
  const page = await context.newPage();
  await page.goto(sources.blankPage);
  return page;
}

/** One call in a fresh worker, as after a reload. */
function call(page: Page, request: Call): Promise<Outcome> {
  return page.evaluate(
    (request) =>
      new Promise<Outcome>((resolve, reject) => {
        const worker = new Worker("/e2e/browser/modelStore.worker.ts", { type: "module" });
        worker.onmessage = ({ data }) => {
          worker.terminate();
          resolve(data);
        };
        worker.onerror = ({ message }) => reject(new Error(message));
        worker.postMessage(request);
      }),
    request,
  );
}

async function open(page: Page, request: OpenRequest): Promise<Opened> {
  const { value, error } = await call(page, { method: "open", ...request });
  if (error) throw Object.assign(new Error(error.message), error);
  return value as Opened;
}

async function list(page: Page): Promise<readonly StoredModel[]> {
  return (await call(page, { method: "list" })).value as readonly StoredModel[];
}

async function filesInStore(page: Page): Promise<number> {
  return page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle("quire-models", { create: true });
    let count = 0;
    for await (const _ of folder.keys()) count++;
    return count;
  });
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Where each request asked to start. */
const starts = () => server.ranges.map((range) => Number(/\d+/.exec(range)?.[0] ?? 0));

function expectForward({ progress }: Opened, total: number): void {
  const loaded = progress.map((event) => event.loaded);
  expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  expect(progress.at(-1)).toEqual({ loaded: total, total });
}

it("downloads once, then opens without the server after a reload", async () => {
  const url = await serve();
  const page = await newPage();
  const first = await open(page, { url });
  expect(first.sha256).toBe(sha256(FILE));
  expect(first.progress.length).toBeGreaterThan(3);
  expectForward(first, FILE.length);
  expect(server.ranges.length).toBe(1);

  await server.close();
  await page.reload();
  const second = await open(page, { url });
  expect(second.sha256).toBe(sha256(FILE));
  expect(second.progress).toEqual([{ loaded: FILE.length, total: FILE.length }]);
  expect(server.ranges.length).toBe(1);
});

it.each([true, false])("goes on after a dropped connection, ranges: %s", async (ranges) => {
  const url = await serve({ ranges, stallAfter: 2 * MIB });
  const opened = await open(await newPage(), { url, dropAt: MIB });
  expect(opened.sha256).toBe(sha256(FILE));
  expectForward(opened, FILE.length);
  expect(starts()[1]).toBeGreaterThanOrEqual(MIB);
});

it.each([true, false])("resumes after a failure and a reload, ranges: %s", async (ranges) => {
  const url = await serve({ ranges, stallAfter: 2 * MIB });
  const page = await newPage();
  await expect(open(page, { url, once: true, dropAt: MIB })).rejects.toMatchObject({
    code: "source-read",
  });
  const [partial] = await list(page);
  expect(partial).toMatchObject({ url, complete: false, byteLength: FILE.length, etag: '"1"' });
  expect(partial!.storedBytes).toBeGreaterThanOrEqual(MIB);

  await page.reload();
  const opened = await open(page, { url });
  expect(opened.sha256).toBe(sha256(FILE));
  expect(opened.progress[0]!.loaded).toBe(partial!.storedBytes);
  expectForward(opened, FILE.length);
  expect(starts()).toEqual([0, partial!.storedBytes]);
  expect(await filesInStore(page)).toBe(1);
});

it("resumes after an abort", async () => {
  const url = await serve();
  const page = await newPage();
  await expect(open(page, { url, abortAt: 3 * MIB })).rejects.toMatchObject({ code: "aborted" });
  expect((await open(page, { url })).sha256).toBe(sha256(FILE));
  expect(starts()[1]).toBeGreaterThanOrEqual(3 * MIB);
});

it("resumes at the last flush after its page was closed", async () => {
  const large = randomBytes(24 * MIB);
  const url = await serve({ stallAfter: 20 * MIB }, large);
  const page = await newPage();
  const download = open(page, { url }).catch(() => "closed");
  const other = await newPage();
  await expect.poll(async () => (await list(other))[0]?.storedBytes).toBeGreaterThan(15 * MIB);
  await page.close();
  expect(await download).toBe("closed");

  server.behaviour.stallAfter = undefined;
  expect((await open(other, { url })).sha256).toBe(sha256(large));
  expect(starts()[1]).toBeGreaterThan(15 * MIB);
});

it("starts anew when the file changed since the last attempt", async () => {
  const url = await serve({ stallAfter: 2 * MIB });
  const page = await newPage();
  const failed = open(page, { url, once: true, dropAt: MIB });
  await expect(failed).rejects.toMatchObject({ code: "source-read" });
  Object.assign(server.behaviour, { bytes: OTHER, etag: '"2"' });
  expect((await open(page, { url })).sha256).toBe(sha256(OTHER));
  expect(await filesInStore(page)).toBe(1);
});

it.each([
  ["another file", OTHER],
  ["a shorter file", OTHER.subarray(0, MIB / 2)],
])("starts anew when it becomes %s during the download", async (_, bytes) => {
  const url = await serve({ stallAfter: 2 * MIB, afterDrop: { bytes, etag: '"2"' } });
  const opened = await open(await newPage(), { url, dropAt: MIB });
  expect(opened.sha256).toBe(sha256(bytes));
  const loaded = opened.progress.map((event) => event.loaded);
  expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  expect(starts()[0]).toBe(0);
  expect(starts()[1]).toBeGreaterThanOrEqual(MIB);
});

it("does not resume without a way to know that the file is the same", async () => {
  const url = await serve({ etag: undefined, stallAfter: 2 * MIB });
  const page = await newPage();
  const failed = open(page, { url, once: true, dropAt: MIB });
  await expect(failed).rejects.toMatchObject({ code: "source-read" });
  server.behaviour.bytes = OTHER;
  expect((await open(page, { url })).sha256).toBe(sha256(OTHER));
});

it("keeps a stored model until it is deleted, whatever the server has", async () => {
  const url = await serve();
  const page = await newPage();
  await open(page, { url });
  Object.assign(server.behaviour, { bytes: OTHER, etag: '"2"' });
  expect((await open(page, { url })).sha256).toBe(sha256(FILE));
  expect(await call(page, { method: "delete", url })).toEqual({ value: true });
  expect((await open(page, { url })).sha256).toBe(sha256(OTHER));
  expect((await list(page)).length).toBe(1);
});

it.each([
  ["no ranges", { ranges: false }],
  ["hidden headers", { exposeHeaders: false }],
  ["no sizes", { contentLength: false, contentRange: false }],
  ["a compressed file", { gzip: true }],
])("downloads from a server with %s", async (_, behaviour) => {
  const url = await serve(behaviour);
  const page = await newPage();
  expect((await open(page, { url })).sha256).toBe(sha256(FILE));
  await server.close();
  expect((await open(page, { url })).sha256).toBe(sha256(FILE));
});

it("lists and deletes", async () => {
  const url = await serve();
  const page = await newPage();
  expect(await list(page)).toEqual([]);
  await open(page, { url });
  await open(page, { url: `${url}?second` });
  await open(page, { url });
  expect(await list(page)).toMatchObject([
    { url, byteLength: FILE.length, storedBytes: FILE.length, complete: true, etag: '"1"' },
    { url: `${url}?second`, complete: true },
  ]);
  expect(await call(page, { method: "delete", url })).toEqual({ value: true });
  expect(await call(page, { method: "delete", url })).toEqual({ value: false });
  expect((await list(page)).map((model) => model.url)).toEqual([`${url}?second`]);
  expect(await filesInStore(page)).toBe(1);
});

it("downloads once for two pages", async () => {
  const url = await serve();
  const [a, b] = await Promise.all([newPage(), newPage()]);
  const opened = await Promise.all([open(a, { url }), open(b, { url })]);
  expect(opened.map((model) => model.sha256)).toEqual([sha256(FILE), sha256(FILE)]);
  expect(server.ranges.length).toBe(1);
});

it("does not delete what is being downloaded", async () => {
  const url = await serve({ stallAfter: 2 * MIB });
  const [a, b] = await Promise.all([newPage(), newPage()]);
  const opening = open(a, { url }).catch(() => undefined);
  await expect.poll(async () => (await list(b)).length).toBe(1);
  expect(await call(b, { method: "delete", url })).toMatchObject({ error: { code: "storage" } });
  await a.close();
  await opening;
});

it("names needed and free bytes and the stored models when there is no room", async () => {
  const url = await serve();
  const page = await newPage();
  await open(page, { url });
  const session = await context.newCDPSession(page);
  const origin = new URL(page.url()).origin;
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 6 * MIB });
  await expect(open(page, { url: `${url}?second` })).rejects.toMatchObject({
    code: "storage",
    data: { needed: FILE.length, free: expect.any(Number), models: JSON.stringify([url]) },
    message: expect.stringContaining(`${FILE.length} bytes`),
  });
  expect((await open(page, { url })).sha256).toBe(sha256(FILE));
});

it("reads from the server where there is no store", async () => {
  const url = await serve();
  const page = await newPage();
  expect((await open(page, { url, withoutStore: true })).sha256).toBe(sha256(FILE));
  expect(await list(page)).toEqual([]);
});

it("reads from the server where files cannot be written: outside a worker", async () => {
  const url = await serve();
  const page = await newPage();
  // As text, because the test's own build would rewrite the import.
  const byteLength = await page.evaluate(`
    import("/src/weights/modelStore.ts")
      .then(({ openModelUrl }) => openModelUrl(${JSON.stringify(url)}))
      .then((source) => source.read(0, source.byteLength))
      .then((bytes) => bytes.length)
  `);
  expect(byteLength).toBe(FILE.length);
});

it("loads a deleted file again although the registry knows it", async () => {
  const url = await serve();
  const page = await newPage();
  await open(page, { url });
  await page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    await root.removeEntry("quire-models", { recursive: true });
  });
  expect((await open(page, { url })).sha256).toBe(sha256(FILE));
});

it("passes on a status", async () => {
  const url = await serve({ status: 404 });
  await expect(open(await newPage(), { url })).rejects.toMatchObject({ data: { status: 404 } });
});
