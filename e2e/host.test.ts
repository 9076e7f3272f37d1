import { expect, test } from "vitest";
import { createReferenceBackend } from "../src/backends/reference/backend.ts";
import { readEngineOptions } from "../src/client/engineOptions.ts";
import { readSettings } from "../src/client/samplingFields.ts";
import { EngineHost } from "../src/worker/host.ts";
import type { GenerateRequest, WorkerMessage } from "../src/worker/protocol.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

// The worker's end by itself, told what no page of ours would tell it.

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 256 }).buffer;

test("a request whose text can't be followed is refused and leaves nothing in the engine", async () => {
  const messages: WorkerMessage[] = [];
  const host = new EngineHost({
    createBackend: async () => ({ backend: createReferenceBackend(), reason: "It is a test." }),
    send: (message) => messages.push(message),
  });
  const loaded = await host.control.load(readEngineOptions({ model }).request);
  expect(loaded.ok).toBe(true);
  const request: GenerateRequest = {
    requestId: 1,
    prompt: { kind: "tokens", tokens: [65] },
    ...readSettings({ max_tokens: 200, ignore_eos: true }, undefined),
    stop: [undefined as unknown as string],
  };
  host.receive({ type: "submit", request });
  expect(messages.at(-1)).toMatchObject({ type: "failed", requestId: 1 });
  const stats = await host.control.stats();
  expect(stats).toMatchObject({ ok: true, value: { sequences: { running: 0, waiting: 0 } } });
  await host.control.dispose();
});
