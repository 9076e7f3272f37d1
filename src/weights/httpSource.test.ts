import { afterEach, describe, expect, it } from "vitest";
import { openHttpSource } from "./httpSource.ts";
import type { HttpOptions } from "./httpStream.ts";
import {
  type FileServer,
  type FileServerBehaviour,
  startFileServer,
} from "./testing/fileServer.ts";

const MIB = 1024 * 1024;
const FILE = Uint8Array.from({ length: 3 * MIB + 17 }, (_, i) => (i * 31 + (i >> 8)) & 255);
const QUICK: HttpOptions = { retryDelaysMs: [1, 1, 1] };

let server: FileServer | undefined;
afterEach(() => server?.close());

async function serve(behaviour: Partial<FileServerBehaviour> = {}): Promise<FileServer> {
  server = await startFileServer(FILE, behaviour);
  return server;
}

const SERVERS: Record<string, Partial<FileServerBehaviour>> = {
  "a server with ranges": {},
  "a server that hides Content-Range": { contentRange: false },
  "ranges without any size": { contentRange: false, contentLength: false },
  "a server without ranges": { ranges: false },
  "neither ranges nor Content-Length": { ranges: false, contentLength: false },
  "a server that compresses": { ranges: false, gzip: true },
  "a server that compresses ranges": { gzip: true },
  "a server without validators": { etag: undefined },
};

describe.each(Object.entries(SERVERS))("%s", (_, behaviour) => {
  it("gives size and bytes, in order and not", async () => {
    const { url } = await serve(behaviour);
    const source = await openHttpSource(url, QUICK);
    expect(source.byteLength).toBe(FILE.length);
    expect(source.etag).toBe("etag" in behaviour ? undefined : '"1"');
    const pieces: [number, number][] = [
      [0, 10],
      [10, 70_000],
      [100_000, 0],
      [2 * MIB, MIB + 17],
      [5, 100],
      [FILE.length - 1, 1],
    ];
    for (const [offset, length] of pieces) {
      const bytes = await source.read(offset, length);
      expect(Buffer.compare(bytes, FILE.subarray(offset, offset + length))).toBe(0);
    }
  });

  it("gives reads that were asked for at once", async () => {
    const { url } = await serve(behaviour);
    const source = await openHttpSource(url, QUICK);
    const offsets = [0, MIB, 2 * MIB, 17];
    const found = await Promise.all(offsets.map((offset) => source.read(offset, 1000)));
    for (const [i, offset] of offsets.entries()) {
      expect(Buffer.compare(found[i]!, FILE.subarray(offset, offset + 1000))).toBe(0);
    }
  });
});

describe.each([true, false])("reading in order, ranges honoured: %s", (ranges) => {
  it("costs one request", async () => {
    const { url, ranges: requests } = await serve({ ranges });
    const source = await openHttpSource(url, QUICK);
    for (let at = 0; at < FILE.length; at += 100_000) {
      await source.read(at, Math.min(90_000, FILE.length - at));
    }
    expect(requests).toEqual(["bytes=0-"]);
  });

  it("goes on after dropped connections", async () => {
    const { url, ranges: requests } = await serve({ ranges, drops: 2, dropAfter: MIB });
    const source = await openHttpSource(url, QUICK);
    expect(Buffer.compare(await source.read(0, FILE.length), FILE)).toBe(0);
    expect(requests.length).toBe(3);
    expect(Number(/\d+/.exec(requests[1]!)![0])).toBeGreaterThan(0);
  });

  it("gives up on a connection that is always dropped", async () => {
    const { url, ranges: requests } = await serve({ ranges, drops: 1000, dropAfter: 0 });
    const source = await openHttpSource(url, QUICK);
    await expect(source.read(0, 10)).rejects.toMatchObject({ code: "source-read" });
    expect(requests.length).toBe(4);
  });

  it("tells that the file changed", async () => {
    const file = await serve({ ranges, drops: 1, dropAfter: MIB });
    const source = await openHttpSource(file.url, QUICK);
    await source.read(0, 1000);
    file.behaviour.etag = '"2"';
    await expect(source.read(1000, 2 * MIB)).rejects.toMatchObject({
      code: "source-read",
      data: { changed: true },
      message: expect.stringContaining('"2"'),
    });
  });

  it("tells that the size changed where there is no validator", async () => {
    const file = await serve({ ranges, etag: undefined, drops: 1, dropAfter: MIB });
    const source = await openHttpSource(file.url, QUICK);
    file.behaviour.bytes = FILE.subarray(0, 2 * MIB);
    const read = source.read(0, FILE.length);
    await expect(read).rejects.toMatchObject({ code: "source-read", data: { changed: true } });
  });

  it("aborts a read that waits, and can be read afterwards", async () => {
    const file = await serve({ ranges, stallAfter: 1000 });
    const source = await openHttpSource(file.url, QUICK);
    const controller = new AbortController();
    const read = source.read(0, 2000, controller.signal);
    setTimeout(() => controller.abort(), 20);
    await expect(read).rejects.toMatchObject({ code: "aborted" });
    file.behaviour.stallAfter = undefined;
    expect((await source.read(0, 2000)).length).toBe(2000);
  });

  it("takes a stalled connection for a dropped one", async () => {
    const file = await serve({ ranges, stallAfter: 1000 });
    const source = await openHttpSource(file.url, { ...QUICK, stallMs: 50 });
    const read = source.read(0, 2000);
    setTimeout(() => (file.behaviour.stallAfter = undefined), 20);
    expect(Buffer.compare(await read, FILE.subarray(0, 2000))).toBe(0);
  });
});

it.each([403, 404, 416])("refuses status %i at once, with the number", async (status) => {
  const { url, ranges: requests } = await serve({ status });
  await expect(openHttpSource(url, QUICK)).rejects.toMatchObject({
    code: "source-read",
    data: { status },
    message: expect.stringContaining(`${status}`),
  });
  expect(requests.length).toBe(1);
});

it("tries again after status 503", async () => {
  const file = await serve({ status: 503 });
  const opening = openHttpSource(file.url, { retryDelaysMs: [100, 100] });
  setTimeout(() => (file.behaviour.status = undefined), 50);
  expect((await opening).byteLength).toBe(FILE.length);
});

it("refuses a server that is not there", async () => {
  const { url, close } = await serve();
  await close();
  await expect(openHttpSource(url, QUICK)).rejects.toMatchObject({ code: "source-read" });
});

it("keeps secrets in the query out of its name", async () => {
  const { url } = await serve();
  expect((await openHttpSource(`${url}?token=secret`, QUICK)).name).toBe(url);
});

it("aborts before and while opening", async () => {
  const { url } = await serve({ status: 503 });
  const gone = AbortSignal.abort();
  await expect(openHttpSource(url, { signal: gone })).rejects.toMatchObject({ code: "aborted" });
  const controller = new AbortController();
  const opening = openHttpSource(url, { signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await expect(opening).rejects.toMatchObject({ code: "aborted" });
});

it("refuses what is not a URL and ranges outside the file", async () => {
  await expect(openHttpSource("model.gguf")).rejects.toMatchObject({ code: "invalid-argument" });
  const { url } = await serve();
  const source = await openHttpSource(url, QUICK);
  for (const [offset, length] of [
    [-1, 1],
    [0, FILE.length + 1],
    [FILE.length, 1],
    [0.5, 1],
    [0, NaN],
  ]) {
    await expect(source.read(offset!, length!)).rejects.toMatchObject({ code: "source-read" });
  }
});
