import { describe, expect, it, vi } from "vitest";
import { createEngine } from "../src/client/createEngine.ts";
import type { EngineOptions, LoadProgress, QuireEngine } from "../src/client/types.ts";
import { QuireError } from "../src/errors.ts";
import type { ByteSource, ConnectMessage } from "../src/worker/protocol.ts";
import { createLoopbackWorker, createWorkerShell } from "./fixtures/loopbackWorker.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

// How page and worker find, lose and leave each other, over real message ports.

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 256 }).buffer;

function create(options: Partial<EngineOptions> = {}): Promise<QuireEngine> {
  return createEngine({ model, worker: () => createLoopbackWorker(), ...options });
}

async function errorOf(promise: Promise<unknown>): Promise<QuireError> {
  const error = await promise.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(QuireError);
  return error as QuireError;
}

it("a worker of another release is refused, with both versions", async () => {
  const worker = createWorkerShell((message) => {
    const { type, stream, version } = message as ConnectMessage;
    if (type !== "connect") return;
    stream.postMessage({ type: "ready", version: version - 1, holdsLock: false });
  });
  const error = await errorOf(create({ worker, workerTimeoutMs: 5000 }));
  expect(error.code).toBe("worker-failed");
  expect(error.message).toMatch(/speaks version \d+ of the protocol, the page version \d+/);
  expect(worker.isTerminated).toBe(true);
});

describe("one Worker", () => {
  it("serves one engine at a time, and none after it", async () => {
    const worker = createLoopbackWorker();
    const first = await create({ worker });
    const beside = await errorOf(create({ worker, workerTimeoutMs: 1000 }));
    expect(beside).toMatchObject({ code: "invalid-argument" });
    expect(beside.message).toContain("`worker`");
    // The first is none the worse for it.
    expect(await first.tokenize("a")).not.toEqual([]);
    await first.dispose();
    const after = await errorOf(create({ worker, workerTimeoutMs: 1000 }));
    expect(after.code).toBe("invalid-argument");
  });
});

describe("a callback for progress that throws", () => {
  it("ends the load with its error as the cause, and is called no more", async () => {
    const worker = createLoopbackWorker();
    const boom = new Error("boom");
    const onProgress = vi.fn((_: LoadProgress) => {
      throw boom;
    });
    const error = await errorOf(create({ worker, onProgress }));
    expect(error).toMatchObject({ code: "invalid-argument", data: { field: "onProgress" } });
    expect(error.cause).toBe(boom);
    expect(worker.isTerminated).toBe(true);
    expect(onProgress).toHaveBeenCalledTimes(1);
  });
});

describe("a ByteSource's read under way", () => {
  /** A source whose reads never end, and the signals that they were given. */
  function makeEndless() {
    const signals: AbortSignal[] = [];
    const read: ByteSource["read"] = (_, __, signal) => {
      signals.push(signal!);
      return new Promise(() => {});
    };
    const source: ByteSource = { name: "endless", byteLength: model.byteLength, read };
    return { source, signals };
  }

  it("is told when the load is aborted", async () => {
    const { source, signals } = makeEndless();
    const abort = new AbortController();
    const loading = errorOf(create({ model: source, signal: abort.signal }));
    await vi.waitFor(() => expect(signals).toHaveLength(1));
    abort.abort();
    expect((await loading).code).toBe("aborted");
    expect(signals[0]!.aborted).toBe(true);
  });

  it("is told when the worker crashes", async () => {
    const { source, signals } = makeEndless();
    const worker = createLoopbackWorker();
    const loading = errorOf(create({ model: source, worker }));
    await vi.waitFor(() => expect(signals).toHaveLength(1));
    worker.crash("Uncaught RangeError");
    expect((await loading).code).toBe("worker-failed");
    expect(signals[0]!.aborted).toBe(true);
  });
});

describe("a stream whose worker is done and whose reader is not", () => {
  const long = { prompt: "a", max_tokens: 20, temperature: 0, ignore_eos: true };

  it.each(["the signal", "`abort`"])("is ended by %s all the same", async (how) => {
    const engine = await create();
    const abort = new AbortController();
    const stream = await engine.completions.create({
      ...long,
      stream: true,
      signal: abort.signal,
    });
    await vi.waitFor(async () => {
      const { sequences, totals } = await engine.stats();
      expect([sequences.running + sequences.waiting, totals.completionTokens]).toEqual([0, 20]);
    });
    if (how === "`abort`") stream.abort();
    else abort.abort();
    let chunks = 0;
    const reading = (async () => {
      for await (const _ of stream) chunks++;
    })();
    expect((await errorOf(reading)).code).toBe("aborted");
    expect(chunks).toBe(0);
    await engine.dispose();
  });
});

it("calls of a stream's `next` that overlap all end, each with its own chunk", async () => {
  const engine = await create();
  const stream = await engine.chat.completions.create({
    messages: [{ role: "user", content: "Hello" }],
    max_tokens: 4,
    temperature: 0,
    ignore_eos: true,
    return_token_ids: true,
    stream: true,
  });
  const iterator = stream[Symbol.asyncIterator]();
  const results = await Promise.all(Array.from({ length: 8 }, () => iterator.next()));
  const ids = results.flatMap(({ value }) => value?.choices[0]?.token_ids ?? []);
  expect(ids).toHaveLength(4);
  expect(results.at(-1)).toEqual({ done: true, value: undefined });
  await engine.dispose();
});
