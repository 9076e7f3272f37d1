import { describe, expect, test } from "vitest";
import { createReferenceBackend } from "../src/backends/reference/backend.ts";
import { createEngine } from "../src/client/createEngine.ts";
import { createLoopbackWorker } from "./fixtures/loopbackWorker.ts";
import { makeNoNumberModel, NO_NUMBER_TOKEN } from "./fixtures/noNumberModel.ts";
import { describeNoNumber } from "./suites/noNumber.ts";

describeNoNumber("the reference back end", async () => createReferenceBackend());

describe("a request whose logits are no numbers", () => {
  test("fails by code, streamed or whole, and the engine goes on", async () => {
    const { buffer } = await makeNoNumberModel({ contextLength: 128 });
    const engine = await createEngine({ model: buffer, worker: () => createLoopbackWorker() });
    const spoilt = { prompt: [5, NO_NUMBER_TOKEN, 7], max_tokens: 4, n: 2 };
    const fine = { prompt: [5, 6, 7], max_tokens: 4, temperature: 0, ignore_eos: true };
    const failure = { code: "adapter-numerics", message: expect.stringContaining("no next token") };
    const [answer] = await Promise.all([
      engine.completions.create(fine),
      expect(engine.completions.create(spoilt)).rejects.toMatchObject(failure),
    ]);
    expect(answer.usage?.completion_tokens).toBe(4);
    const stream = await engine.completions.create({ ...spoilt, stream: true });
    const readAll = async () => {
      for await (const { choices } of stream) expect(choices[0]?.text ?? "").toBe("");
    };
    await expect(readAll()).rejects.toMatchObject(failure);
    const again = await engine.completions.create(fine);
    expect(again.choices[0]!.text).toBe(answer.choices[0]!.text);
    await engine.dispose();
  });
});
