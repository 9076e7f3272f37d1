import { describe, expect, test } from "vitest";
import { QuireError } from "../errors.ts";
import { Generation } from "./generation.ts";
import { readSettings } from "./samplingFields.ts";
import { delta, lastDelta, ScriptedConnection } from "./testing/scriptedConnection.ts";

/** A generation of one request that has been submitted. */
function begin(signal?: AbortSignal) {
  const script = new ScriptedConnection();
  const prompt = { kind: "tokens", tokens: [1, 2, 3] } as const;
  const request = { prompt, ...readSettings({}, undefined) };
  const generation = new Generation(script.connection, [request], signal);
  const [submitted] = script.submitted;
  return { generation, submitted: submitted!, sink: submitted!.sink };
}

/** Counts the listeners that a signal has. */
function countListeners(signal: AbortSignal): () => number {
  let count = 0;
  const { addEventListener, removeEventListener } = AbortSignal.prototype;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    count++;
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    count--;
    removeEventListener.apply(signal, args);
  };
  return () => count;
}

describe("a signal that fires when the worker is done and the reader is not", () => {
  test("drops what is unread, as `abort` does", async () => {
    const abort = new AbortController();
    const bySignal = begin(abort.signal);
    const byCall = begin();
    for (const { sink } of [bySignal, byCall]) {
      for (const text of ["a", "b", "c"]) sink.delta(delta(text));
      sink.delta(lastDelta());
    }
    for (const { generation } of [bySignal, byCall]) {
      expect(await generation.next()).toMatchObject({ text: "a" });
    }
    abort.abort("enough");
    byCall.generation.abort("enough");
    for (const { generation } of [bySignal, byCall]) {
      await expect(generation.next()).rejects.toMatchObject({ code: "aborted", cause: "enough" });
    }
  });

  test("has no effect once the end was read", async () => {
    const abort = new AbortController();
    const { generation, sink } = begin(abort.signal);
    sink.delta(lastDelta());
    await generation.next();
    expect(await generation.next()).toBeUndefined();
    abort.abort();
    expect(await generation.next()).toBeUndefined();
  });
});

describe("the signal is let go", () => {
  const start = () => {
    const { signal } = new AbortController();
    const count = countListeners(signal);
    return { ...begin(signal), count };
  };

  test("when the end is read", async () => {
    const { generation, sink, count } = start();
    sink.delta(lastDelta());
    expect(count()).toBe(1);
    await generation.next();
    await generation.next();
    expect(count()).toBe(0);
  });

  test("when the error is read", async () => {
    const { generation, sink, count } = start();
    sink.failed(new QuireError("device-lost", "gone"));
    await expect(generation.next()).rejects.toMatchObject({ code: "device-lost" });
    expect(count()).toBe(0);
    const refused = start();
    refused.sink.failed(new QuireError("context-overflow", "too long"));
    await expect(refused.generation.accepted()).rejects.toMatchObject({ code: "context-overflow" });
    expect(refused.count()).toBe(0);
  });

  test("by `abort`, which also ends the request", () => {
    const { generation, submitted, count } = start();
    generation.abort();
    expect(count()).toBe(0);
    expect(submitted.isAborted).toBe(true);
    // That of a stream that was dropped with its end unread.
    const done = start();
    done.sink.delta(lastDelta());
    done.generation.abort();
    expect(done.count()).toBe(0);
  });
});
