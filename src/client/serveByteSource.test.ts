import { afterEach, describe, expect, test, vi } from "vitest";
import { PageSource } from "../worker/pageSource.ts";
import type { ByteSource, PageMessage, WorkerMessage } from "../worker/protocol.ts";
import { serveByteSource } from "./serveByteSource.ts";

// Page and worker ends over a real channel: what a source returns has to cross.

const BYTE_LENGTH = 64;
const ports: MessagePort[] = [];

afterEach(() => {
  for (const port of ports.splice(0)) port.close();
});

function open(read: ByteSource["read"]) {
  const { port1, port2 } = new MessageChannel();
  ports.push(port1, port2);
  const source: ByteSource = { name: "mine", byteLength: BYTE_LENGTH, read };
  const abortAll = serveByteSource(port1, source);
  port1.start();
  const worker = new PageSource("mine", BYTE_LENGTH, (message: WorkerMessage) =>
    port2.postMessage(message),
  );
  port2.onmessage = ({ data }: MessageEvent<PageMessage>) => {
    if (data.type === "readDone") worker.receive(data);
  };
  return { worker, abortAll, page: port1 };
}

const BYTES = Uint8Array.from({ length: 8 }, (_, i) => i + 1);

describe("bytes arrive whatever they are a view on", () => {
  test.each<[string, () => Uint8Array]>([
    ["a buffer of their own", () => BYTES.slice()],
    ["a part of a larger buffer", () => Uint8Array.from([0, ...BYTES, 0]).subarray(1, 9)],
    [
      "a whole shared buffer",
      () => {
        const shared = new Uint8Array(new SharedArrayBuffer(8));
        shared.set(BYTES);
        return shared;
      },
    ],
    ["a pooled Buffer of Node's, whose slice is no copy", () => Buffer.from(BYTES)],
  ])("%s", async (_, make) => {
    const bytes = make();
    const { worker } = open(async () => bytes as Uint8Array<ArrayBuffer>);
    expect([...(await worker.read(0, 8))]).toEqual([...BYTES]);
  });

  test("a buffer with more in it stays with its owner", async () => {
    const all = new Uint8Array(16);
    const { worker } = open(async (offset) => all.subarray(offset, offset + 8));
    await worker.read(0, 8);
    await worker.read(8, 8);
    expect(all.byteLength).toBe(16);
  });
});

describe("a read that gives no bytes fails with `source-read`", () => {
  test.each<[string, () => unknown, RegExp]>([
    ["nothing", () => undefined, /gave no Uint8Array/],
    ["other numbers", () => new Uint16Array(4), /gave no Uint8Array/],
    ["an ArrayBuffer", () => new ArrayBuffer(8), /gave no Uint8Array/],
  ])("%s", async (_, make, message) => {
    const { worker } = open(async () => make() as Uint8Array<ArrayBuffer>);
    const error = await worker.read(0, 8).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "source-read", message: expect.stringMatching(message) });
  });

  test("the same array again, which the worker has got already", async () => {
    const bytes = BYTES.slice();
    const { worker } = open(async () => bytes);
    await worker.read(0, 8);
    const error = await worker.read(0, 8).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: "source-read",
      cause: expect.stringContaining("detached"),
    });
  });

  test("bytes that can't be posted, as those of a WebAssembly.Memory in browsers", async () => {
    const { worker, page } = open(async () => BYTES.slice());
    const { postMessage } = page;
    page.postMessage = (message: unknown, transfer: unknown) => {
      if (Array.isArray(transfer) && transfer.length > 0) throw new TypeError("not detachable");
      postMessage.call(page, message);
    };
    const error = await worker.read(0, 8).catch((reason: unknown) => reason);
    const cause = expect.stringContaining("not detachable");
    expect(error).toMatchObject({ code: "source-read", cause });
  });

  test.each<[unknown, string]>([
    [new Error("disk on fire"), "disk on fire"],
    ["plain text", "plain text"],
    [Object.create(null), "[object Object]"],
  ])("what it throws is the cause: %#", async (thrown, text) => {
    const { worker } = open(async () => {
      throw thrown;
    });
    const error = await worker.read(0, 8).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "source-read", cause: expect.stringContaining(text) });
    expect((error as Error).message).toBe("Reading 8 bytes at 0 of mine failed.");
  });
});

describe("the signal of a read fires", () => {
  /** Reads that end only by their signal. */
  function openEndless() {
    const signals: AbortSignal[] = [];
    const opened = open((_, __, signal) => {
      signals.push(signal!);
      return new Promise((_resolve, reject) =>
        signal!.addEventListener("abort", () => reject(signal!.reason)),
      );
    });
    return { ...opened, signals };
  }

  test("when the worker cancels it, and no other's", async () => {
    const { worker, signals } = openEndless();
    const abort = new AbortController();
    const cancelled = worker.read(0, 8, abort.signal).catch((reason: unknown) => reason);
    void worker.read(8, 8);
    await vi.waitFor(() => expect(signals).toHaveLength(2));
    abort.abort();
    expect(await cancelled).toMatchObject({ code: "aborted" });
    await vi.waitFor(() => expect(signals[0]!.aborted).toBe(true));
    expect(signals[1]!.aborted).toBe(false);
  });

  test("when the page gives the worker up", async () => {
    const { worker, abortAll, signals } = openEndless();
    void worker.read(0, 8).catch(() => {});
    void worker.read(8, 8).catch(() => {});
    await vi.waitFor(() => expect(signals).toHaveLength(2));
    abortAll();
    expect(signals.every(({ aborted }) => aborted)).toBe(true);
  });
});
