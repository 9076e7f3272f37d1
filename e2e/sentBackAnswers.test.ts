import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../src/client/createEngine.ts";
import type { ChatChoice, ChatMessage, QuireEngine } from "../src/client/types.ts";
import { createLoopbackWorker } from "./fixtures/loopbackWorker.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

// A conversation that goes on with the engine's own answers, through the public API: what was computed
// for them is found again, although the text alone would become other tokens.

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 512 }).buffer;
const sampled = { ignore_eos: true, return_token_ids: true };

let engine: QuireEngine;
beforeAll(async () => {
  engine = await createEngine({ model, worker: () => createLoopbackWorker() });
});
afterAll(async () => {
  await engine.dispose();
});

/** Ids of the prompt that a first message becomes. */
async function promptIds(content: string): Promise<number[]> {
  const text = `<|im_start|>user\n${content}<|im_end|>\n<|im_start|>assistant\n`;
  return engine.tokenize(text, { specialTokens: true });
}

describe("an answer that is sent back", () => {
  /** Second turn after an answer that ended as the fields say; usage of both. */
  async function twoTurns(content: string, fields: object) {
    const messages: ChatMessage[] = [{ role: "user", content }];
    const params = { ...sampled, temperature: 1, seed: 2, messages, max_tokens: 20, ...fields };
    const first = await engine.chat.completions.create(params);
    const [{ message, token_ids }] = first.choices as [ChatChoice];
    messages.push({ role: "assistant", content: message.content });
    messages.push({ role: "user", content: "Go on, then" });
    const second = await engine.chat.completions.create({ ...params, messages });
    // What was generated is not what the tokenizer makes of it.
    expect(await engine.tokenize(message.content)).not.toEqual(token_ids);
    return { first: first.usage, second: second.usage };
  }

  it("is in the pool but for its last token", async () => {
    const { first, second } = await twoTurns("What is the first of these?", {});
    expect(second.prompt_tokens_details.cached_tokens).toBeGreaterThanOrEqual(
      first.prompt_tokens + first.completion_tokens - 1,
    );
  });

  it("is so when a stop token has ended it", async () => {
    const { choices } = await engine.chat.completions.create({
      ...sampled,
      ...{ temperature: 1, seed: 2, max_tokens: 20 },
      messages: [{ role: "user", content: "What is the second of these?" }],
    });
    const stop = choices[0]!.token_ids![12]!;
    const { first, second } = await twoTurns("What is the second of these?", {
      stop_token_ids: [stop],
    });
    expect(first.completion_tokens).toBeLessThan(20);
    expect(second.prompt_tokens_details.cached_tokens).toBeGreaterThanOrEqual(
      first.prompt_tokens + first.completion_tokens,
    );
  });

  it("is so when the reader has left in the middle", async () => {
    const messages: ChatMessage[] = [{ role: "user", content: "What is the third of these?" }];
    const params = { ...sampled, temperature: 1, seed: 3, messages, max_tokens: 200 };
    const stream = await engine.chat.completions.create({
      ...params,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let count = 0;
    for await (const { choices } of stream) {
      text += choices[0]?.delta.content ?? "";
      count += choices[0]?.token_ids?.length ?? 0;
      // Where a character ends: what is left of half of one is not in the text.
      if (count >= 20 && choices[0]?.delta.content) break;
    }
    const prompt = (await promptIds(messages[0]!.content as string)).length;
    messages.push({ role: "assistant", content: text }, { role: "user", content: "Go on, then" });
    const second = await engine.chat.completions.create({ ...params, max_tokens: 2, messages });
    const { cached_tokens } = second.usage.prompt_tokens_details;
    expect(cached_tokens).toBeGreaterThanOrEqual(prompt + count - 1);
  });

  it("only for the salt that it was generated under", async () => {
    const messages: ChatMessage[] = [{ role: "user", content: "What is the fourth of these?" }];
    const params = { ...sampled, temperature: 1, seed: 4, max_tokens: 20, messages };
    const { choices } = await engine.chat.completions.create({ ...params, cache_salt: "mine" });
    const next: ChatMessage[] = [
      ...messages,
      { role: "assistant", content: choices[0]!.message.content },
      { role: "user", content: "So?" },
    ];
    const count = async (cache_salt: string) =>
      (await engine.chat.completions.create({ ...params, messages: next, cache_salt })).usage
        .prompt_tokens;
    const canonical = (await engine.tokenize(choices[0]!.message.content)).length;
    expect((await count("mine")) - (await count("other"))).toBe(20 - canonical);
  });
});
