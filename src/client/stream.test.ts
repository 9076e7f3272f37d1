import { describe, expect, test } from "vitest";
import { Generation } from "./generation.ts";
import { readSettings } from "./samplingFields.ts";
import { ChunkStream } from "./stream.ts";
import { delta, lastDelta, ScriptedConnection } from "./testing/scriptedConnection.ts";

/** A stream whose chunks are the texts of its deltas. */
function open() {
  const script = new ScriptedConnection();
  const prompt = { kind: "tokens", tokens: [1] } as const;
  const requests = [{ prompt, ...readSettings({}, undefined) }];
  const generation = new Generation(script.connection, requests, undefined);
  const shape = { delta: ({ text }: { text: string }) => text, end: () => "usage" };
  const stream = new ChunkStream(generation, shape);
  const [submitted] = script.submitted;
  return { iterator: stream[Symbol.asyncIterator](), submitted: submitted!, sink: submitted!.sink };
}

describe("calls of `next` that overlap", () => {
  test("each get their chunk, in the order of the calls", async () => {
    const { iterator, sink } = open();
    const reads = Array.from({ length: 6 }, () => iterator.next());
    for (const text of ["a", "b", "c"]) {
      sink.delta(delta(text));
      await new Promise((resolve) => setTimeout(resolve));
    }
    sink.delta(lastDelta());
    const chunks = await Promise.all(reads);
    expect(chunks.map(({ value }) => value)).toEqual(["a", "b", "c", "", "usage", undefined]);
    expect(chunks.map(({ done }) => done)).toEqual([...Array(5).fill(false), true]);
  });

  test("are not waited for by `return`, which ends the request", async () => {
    const { iterator, submitted } = open();
    const first = iterator.next();
    const second = iterator.next();
    await new Promise((resolve) => setTimeout(resolve));
    expect(await iterator.return!()).toEqual({ done: true, value: undefined });
    expect(submitted.isAborted).toBe(true);
    for (const read of [first, second]) {
      expect(await read).toEqual({ done: true, value: undefined });
    }
  });
});
