import { expect, it } from "vitest";
import { openHttpSource } from "./httpSource.ts";
import { HttpStream } from "./httpStream.ts";

const FILE = Uint8Array.from({ length: 400_000 }, (_, i) => (i * 31 + (i >> 8)) & 255);
const ADDRESS = new URL("https://models.example/model.gguf");

interface FakeServer {
  readonly fetch: typeof fetch;
  /** The Range headers of the requests so far, "" without one. */
  readonly ranges: string[];
}

/** `answer` gets where the range starts, undefined without one, and the number of the request. */
function serve(answer: (start: number | undefined, request: number) => Response): FakeServer {
  const ranges: string[] = [];
  return {
    ranges,
    fetch: async (_, init) => {
      const range = new Headers(init?.headers).get("range") ?? "";
      ranges.push(range);
      return answer(range === "" ? undefined : Number(/\d+/.exec(range)![0]), ranges.length);
    },
  };
}

/** An answer with the bytes from `start` to `end`. */
function piece(start: number, end = FILE.length): Response {
  const headers = { etag: '"1"', "content-range": `bytes ${start}-${end - 1}/${FILE.length}` };
  return new Response(FILE.subarray(start, end), { status: 206, headers });
}

const whole = () => new Response(FILE, { headers: { etag: '"1"' } });

it("asks for the range again when the network fails at the start of a resumed download", async () => {
  const server = serve((start, request) => {
    if (request === 1) throw new TypeError("network");
    return start === undefined ? whole() : piece(start);
  });
  const options = { fetch: server.fetch, retryDelaysMs: [1, 1] };
  const stream = await HttpStream.open(ADDRESS, 300_000, options);
  expect((await stream.read(10))?.length).toBe(10);
  expect(server.ranges).toEqual(["bytes=300000-", "bytes=300000-"]);
});

it("asks for the whole file when a range fails at the start of a new one", async () => {
  // Chromium's answer to a range of a compressed file.
  const server = serve((start) => {
    if (start !== undefined) throw new TypeError("network");
    return whole();
  });
  const source = await openHttpSource(ADDRESS, { fetch: server.fetch, retryDelaysMs: [1] });
  expect(source.byteLength).toBe(FILE.length);
  expect(server.ranges).toEqual(["bytes=0-", ""]);
});

it("refuses a server that answers everything with a compressed piece", async () => {
  const server = serve((start, request) => {
    if (request > 10) throw new TypeError("network");
    const headers = { etag: '"1"', "content-encoding": "gzip" };
    return new Response(FILE.subarray(start ?? 0), { status: 206, headers });
  });
  const opening = openHttpSource(ADDRESS, { fetch: server.fetch, retryDelaysMs: [1, 1] });
  await expect(opening).rejects.toMatchObject({
    code: "source-read",
    message: expect.stringContaining("asked for the whole"),
  });
  expect(server.ranges).toEqual(["bytes=0-", ""]);
});

it("goes on at once where a server sends a range only in part", async () => {
  const server = serve((start = 0) => piece(start, Math.min(start + 2 ** 16, FILE.length)));
  // No attempt after a failure: parts are none.
  const source = await openHttpSource(ADDRESS, { fetch: server.fetch, retryDelaysMs: [] });
  expect(Buffer.compare(await source.read(0, FILE.length), FILE)).toBe(0);
  expect(server.ranges).toHaveLength(Math.ceil(FILE.length / 2 ** 16));
  expect(server.ranges[1]).toBe("bytes=65536-");
});

it.each([true, false])("gives up on a server that comes no further, ranges: %s", async (ranges) => {
  const server = serve((start = 0, request) => {
    if (request > 20) throw new Error("too many requests");
    if (ranges) return piece(start, Math.max(start, 1000));
    const headers = { etag: '"1"', "content-length": `${FILE.length}` };
    return new Response(FILE.subarray(0, 1000), { headers });
  });
  const source = await openHttpSource(ADDRESS, { fetch: server.fetch, retryDelaysMs: [1, 1] });
  await expect(source.read(0, 2000)).rejects.toMatchObject({
    code: "source-read",
    message: expect.stringContaining("ended at byte 1000"),
  });
  // One with the bytes, one that brings nothing new, and two more attempts.
  expect(server.ranges).toHaveLength(4);
});
