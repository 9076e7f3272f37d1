import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../src/backends/ops.ts";
import { createReferenceBackend } from "../src/backends/reference/backend.ts";
import { createEngine } from "../src/client/createEngine.ts";
import type {
  ChatCompletionChunk,
  ChatMessage,
  EngineOptions,
  QuireEngine,
} from "../src/client/types.ts";
import { QuireError } from "../src/errors.ts";
import type { ByteSource, LoadProgress } from "../src/worker/protocol.ts";
import { createLoopbackWorker, createWorkerShell } from "./fixtures/loopbackWorker.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 256 }).buffer;
const hello: ChatMessage[] = [{ role: "user", content: "Hello there, what is this?" }];
const greedy = { temperature: 0, ignore_eos: true };

function create(options: Partial<EngineOptions> = {}): Promise<QuireEngine> {
  return createEngine({ model, worker: () => createLoopbackWorker(), ...options });
}

/** The error that a promise rejects with. */
async function errorOf(promise: Promise<unknown>): Promise<QuireError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(QuireError);
  return error as QuireError;
}

async function readText(stream: AsyncIterable<ChatCompletionChunk>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

/** Waits until the worker holds no block any more: aborts take effect between steps. */
async function untilIdle(engine: QuireEngine): Promise<void> {
  for (let i = 0; i < 500; i++) {
    const { kv, sequences } = await engine.stats();
    if (kv.blocksUsed === 0 && sequences.running + sequences.waiting === 0) return;
  }
  throw new Error("The engine still holds blocks.");
}

let engine: QuireEngine;
beforeAll(async () => {
  engine = await create();
});
afterAll(async () => {
  await engine.dispose();
});

describe("createEngine", () => {
  it("says what it loaded", async () => {
    expect(engine.model).toMatchObject({ architecture: "llama", contextLength: 256 });
    expect(engine.model).toMatchObject({ vocabularySize: 300, hasChatTemplate: true });
    expect(engine.model.parameters).toBeGreaterThan(10_000);
    expect(engine).toMatchObject({ backend: "reference", adapter: null });
    const stats = await engine.stats();
    expect(stats.kv).toMatchObject({ dtype: "f16", blockSize: 16 });
    expect(stats.memory.weightsBytes).toBeGreaterThan(0);
  });

  it("says how many sequences can run where a step has fewer rows than asked for", async () => {
    const reference = createReferenceBackend();
    const narrow: Backend = {
      ...reference,
      createPlanBuilder: (spec) => reference.createPlanBuilder({ ...spec, maxRows: 3 }),
    };
    const own = await create({ worker: () => createLoopbackWorker(() => narrow) });
    expect((await own.stats()).maxSequences).toBe(3);
    expect((await engine.stats()).maxSequences).toBe(16);
    await own.dispose();
  });

  it("reads a ByteSource of the page by range, with progress that never goes back", async () => {
    const bytes = new Uint8Array(model);
    const reads: number[] = [];
    const source: ByteSource = {
      name: "tiny.gguf",
      byteLength: bytes.byteLength,
      read: async (offset, length) => {
        reads.push(length);
        return bytes.slice(offset, offset + length);
      },
    };
    const progress: LoadProgress[] = [];
    const own = await create({ model: source, onProgress: (news) => progress.push(news) });
    expect(own.model.file).toBe("tiny.gguf");
    expect(reads.length).toBeGreaterThan(2);
    const weights = progress.filter(({ phase }) => phase === "weights");
    expect(progress.map(({ phase }) => phase)).toEqual([
      "prepare",
      ...weights.map(() => "weights"),
    ]);
    for (const [i, { loadedBytes }] of weights.entries()) {
      expect(loadedBytes).toBeGreaterThan(weights[i - 1]?.loadedBytes ?? 0);
    }
    expect(weights.at(-1)!.loadedBytes).toBe(weights.at(-1)!.totalBytes);
    await own.dispose();
  });

  it("fails with `source-read` when a ByteSource throws or answers short", async () => {
    const source = { name: "bad", byteLength: model.byteLength };
    const read = async () => {
      throw new Error("disk on fire");
    };
    const error = await errorOf(create({ model: { ...source, read } }));
    expect(error.code).toBe("source-read");
    expect(String(error.cause)).toContain("disk on fire");
    const short = { ...source, read: async () => new Uint8Array(3) };
    expect(await errorOf(create({ model: short }))).toMatchObject({ code: "source-read" });
  });

  it("crosses the codes of files that are no model", async () => {
    const garbage = new Blob([new Uint8Array(1000).fill(7)]);
    expect((await errorOf(create({ model: garbage }))).code).toBe("gguf-invalid");
    const truncated = new Blob([model.slice(0, 2000)]);
    expect((await errorOf(create({ model: truncated }))).code).toBe("gguf-invalid");
    expect((await errorOf(create({ chatTemplate: "{% if %}" }))).code).toBe("chat-template");
    const pool = await errorOf(create({ kvCacheBytes: 100 }));
    expect(pool.code).toBe("kv-pool-too-small");
    expect(pool.data).toMatchObject({ kvCacheBytes: 100 });
  });

  it("aborts at once when the signal fires, and ends the worker", async () => {
    const worker = createLoopbackWorker();
    const abort = new AbortController();
    const read = () => {
      abort.abort();
      return new Promise<never>(() => {});
    };
    const source = { name: "slow", byteLength: model.byteLength, read };
    const error = await errorOf(create({ model: source, worker, signal: abort.signal }));
    expect(error.code).toBe("aborted");
    expect(worker.isTerminated).toBe(true);
    const before = await errorOf(create({ signal: AbortSignal.abort() }));
    expect(before.code).toBe("aborted");
  });

  it.each<[object, string, string]>([
    [{ model: 5 }, "invalid-argument", "model"],
    [{ model: "ftp://example.org/x.gguf" }, "invalid-argument", "model"],
    [{ model: {} }, "invalid-argument", "model"],
    [{ backend: "cuda" }, "invalid-argument", "backend"],
    [{ backend: "webgpu", precision: "fast" }, "unsupported", "precision"],
    [{ blockSize: 12 }, "invalid-argument", "blockSize"],
    [{ kvCacheDtype: "q8" }, "invalid-argument", "kvCacheDtype"],
    [{ kvCacheBytes: -1 }, "invalid-argument", "kvCacheBytes"],
    [{ kvCacheBytes: 1, kvCacheBlocks: 1 }, "invalid-argument", "kvCacheBlocks"],
    [{ maxSequences: 0 }, "invalid-argument", "maxSequences"],
    [{ maxSequences: 2.5 }, "invalid-argument", "maxSequences"],
    [{ signal: {} }, "invalid-argument", "signal"],
    [{ onProgress: 1 }, "invalid-argument", "onProgress"],
    [{ chatTemplate: 1 }, "invalid-argument", "chatTemplate"],
    [{ threads: 0 }, "invalid-argument", "threads"],
    [{ worker: 5 }, "invalid-argument", "worker"],
    [{ beams: 4 }, "unsupported", "beams"],
  ])("refuses the options %j", async (options, code, field) => {
    const error = await errorOf(create(options as Partial<EngineOptions>));
    expect(error.code).toBe(code);
    expect(error.message).toContain(field);
  });
});

describe("chat completions", () => {
  it("completes in OpenAI's shape", async () => {
    const completion = await engine.chat.completions.create({
      messages: hello,
      max_tokens: 8,
      return_token_ids: true,
      ...greedy,
    });
    expect(completion).toMatchObject({ object: "chat.completion", model: engine.model.name });
    const choice = completion.choices[0]!;
    expect(choice).toMatchObject({ index: 0, finish_reason: "length", logprobs: null });
    expect(choice.message.role).toBe("assistant");
    expect(choice.token_ids).toHaveLength(8);
    const { usage } = completion;
    expect(usage.completion_tokens).toBe(8);
    expect(usage.total_tokens).toBe(usage.prompt_tokens + 8);
    expect(await engine.detokenize(choice.token_ids!)).toBe(choice.message.content);
  });

  it("streams what it completes: role first, finish reason last, then usage", async () => {
    const params = { messages: hello, max_tokens: 12, ...greedy };
    const whole = await engine.chat.completions.create(params);
    const stream = await engine.chat.completions.create({
      ...params,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    const deltas = chunks.slice(0, -1);
    expect(deltas.map((chunk) => chunk.choices[0]!.delta.content ?? "").join("")).toBe(
      whole.choices[0]!.message.content,
    );
    expect(deltas.map((chunk) => chunk.choices[0]!.delta.role)).toEqual([
      "assistant",
      ...deltas.slice(1).map(() => undefined),
    ]);
    expect(deltas.map((chunk) => chunk.choices[0]!.finish_reason)).toEqual([
      ...deltas.slice(1).map(() => null),
      "length",
    ]);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    const last = chunks.at(-1)!;
    expect(last.choices).toEqual([]);
    expect(last.usage).toMatchObject({ completion_tokens: 12 });
    expect(last.usage!.prompt_tokens_details.cached_tokens).toBeGreaterThan(0);
  });

  it("makes n samples, sample i with seed + i", async () => {
    const params = { messages: hello, max_tokens: 6, ignore_eos: true, return_token_ids: true };
    const three = await engine.chat.completions.create({ ...params, n: 3, seed: 41 });
    const third = await engine.chat.completions.create({ ...params, seed: 43 });
    expect(three.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(three.choices[2]!.token_ids).toEqual(third.choices[0]!.token_ids);
    expect(three.choices[0]!.token_ids).not.toEqual(three.choices[1]!.token_ids);
    expect(three.usage.completion_tokens).toBe(18);
    expect(three.usage.prompt_tokens).toBe(third.usage.prompt_tokens);
    const random = await engine.chat.completions.create({ ...params, n: 2, max_tokens: 12 });
    expect(random.choices[0]!.token_ids).not.toEqual(random.choices[1]!.token_ids);
  });

  it("takes negative and large seeds as 64-bit keys", async () => {
    const params = { messages: hello, max_tokens: 6, ignore_eos: true, return_token_ids: true };
    const ids = async (seed: number) =>
      (await engine.chat.completions.create({ ...params, seed })).choices[0]!.token_ids;
    expect(await ids(-1)).toEqual(await ids(-1));
    expect(await ids(2 ** 40 + 5)).not.toEqual(await ids(5));
    // Sample 1 of seed -1 has seed 0.
    const two = await engine.chat.completions.create({ ...params, seed: -1, n: 2 });
    expect(two.choices[1]!.token_ids).toEqual(await ids(0));
  });

  it("stops at a stop text, which is not shown, and at a stop token", async () => {
    const params = { messages: hello, max_tokens: 24, return_token_ids: true, ...greedy };
    const whole = (await engine.chat.completions.create(params)).choices[0]!;
    const stop = whole.message.content.slice(6, 9);
    const cutAt = whole.message.content.indexOf(stop);
    const stopped = (await engine.chat.completions.create({ ...params, stop })).choices[0]!;
    expect(stopped).toMatchObject({ finish_reason: "stop", stop_reason: stop });
    expect(stopped.message.content).toBe(whole.message.content.slice(0, cutAt));
    expect(stopped.token_ids).toEqual(whole.token_ids!.slice(0, stopped.token_ids!.length));
    const stream = await engine.chat.completions.create({ ...params, stop, stream: true });
    expect(await readText(stream)).toBe(stopped.message.content);

    const id = whole.token_ids![5]!;
    const byToken = await engine.chat.completions.create({ ...params, stop_token_ids: [id] });
    expect(byToken.choices[0]).toMatchObject({ finish_reason: "stop", stop_reason: id });
    expect(byToken.choices[0]!.token_ids).toEqual(
      whole.token_ids!.slice(0, whole.token_ids!.indexOf(id)),
    );
    await untilIdle(engine);
  });

  it("reports log-probabilities in OpenAI's shape", async () => {
    const { choices } = await engine.chat.completions.create({
      messages: hello,
      max_tokens: 5,
      logprobs: true,
      top_logprobs: 3,
      return_token_ids: true,
      ...greedy,
    });
    const { content } = choices[0]!.logprobs!;
    expect(content).toHaveLength(5);
    for (const entry of content) {
      expect(entry.logprob).toBeLessThanOrEqual(0);
      expect(entry.top_logprobs).toHaveLength(3);
      // Greedy: the sampled token is the likeliest.
      expect(entry.top_logprobs[0]).toMatchObject({ token: entry.token, logprob: entry.logprob });
    }
    const bytes = Uint8Array.from(content.flatMap((entry) => entry.bytes));
    expect(new TextDecoder().decode(bytes)).toBe(choices[0]!.message.content);
  });

  it("obeys logit_bias", async () => {
    const { choices } = await engine.chat.completions.create({
      messages: hello,
      max_tokens: 3,
      logit_bias: { 70: 100 },
      return_token_ids: true,
      ...greedy,
    });
    expect(choices[0]!.token_ids).toEqual([70, 70, 70]);
  });

  it("reads text parts, developer messages and broken UTF-16", async () => {
    const ask = async (messages: ChatMessage[]) =>
      (await engine.chat.completions.create({ messages, max_tokens: 4, ...greedy })).choices[0]!
        .message.content;
    const parts: ChatMessage[] = [{ role: "user", content: [{ type: "text", text: "Hi" }] }];
    expect(await ask(parts)).toBe(await ask([{ role: "user", content: "Hi" }]));
    expect(await ask([{ role: "developer", content: "Be" }, ...hello])).toBe(
      await ask([{ role: "system", content: "Be" }, ...hello]),
    );
    expect(await ask([{ role: "user", content: "a\ud800b" }])).toBe(
      await ask([{ role: "user", content: "a\ufffdb" }]),
    );
  });

  it("generates up to the context without max_tokens", async () => {
    const { choices, usage } = await engine.chat.completions.create({ messages: hello, ...greedy });
    expect(usage.total_tokens).toBe(256);
    expect(choices[0]!.finish_reason).toBe("length");
  });

  it("gives 20 concurrent requests what each gets alone", async () => {
    const ask = async (i: number) => {
      const messages: ChatMessage[] = [
        { role: "user", content: `Question ${i} `.repeat(1 + (i % 3)) },
      ];
      const params = { messages, max_tokens: 3 + (i % 5), seed: i, return_token_ids: true };
      return (await engine.chat.completions.create(params)).choices[0]!.token_ids;
    };
    const numbers = Array.from({ length: 20 }, (_, i) => i);
    const together = await Promise.all(numbers.map(ask));
    for (const i of numbers) expect(together[i]).toEqual(await ask(i));
    await untilIdle(engine);
  });
});

describe("aborting", () => {
  const long = { messages: hello, max_tokens: 200, ...greedy };

  it("rejects before, during and leaves alone after", async () => {
    const before = engine.chat.completions.create({ ...long, signal: AbortSignal.abort("no") });
    const error = await errorOf(before);
    expect(error).toMatchObject({ code: "aborted", cause: "no" });

    const during = new AbortController();
    const pending = errorOf(engine.chat.completions.create({ ...long, signal: during.signal }));
    while ((await engine.stats()).sequences.running === 0);
    during.abort();
    expect((await pending).code).toBe("aborted");
    await untilIdle(engine);

    const after = new AbortController();
    const params = { ...long, max_tokens: 2, signal: after.signal };
    const completion = await engine.chat.completions.create(params);
    after.abort();
    expect(completion.choices[0]!.finish_reason).toBe("length");
  });

  it("ends a stream with `aborted`", async () => {
    const abort = new AbortController();
    const params = { ...long, stream: true as const, signal: abort.signal };
    const stream = await engine.chat.completions.create(params);
    let chunks = 0;
    const reading = (async () => {
      for await (const _ of stream) if (++chunks === 3) abort.abort();
    })();
    expect((await errorOf(reading)).code).toBe("aborted");
    expect(chunks).toBe(3);
    await untilIdle(engine);
  });

  it("frees the blocks when the consumer leaves the loop or cancels the stream", async () => {
    const stream = await engine.chat.completions.create({ ...long, stream: true });
    for await (const _ of stream) break;
    await untilIdle(engine);
    const readable = (
      await engine.chat.completions.create({ ...long, stream: true })
    ).toReadableStream();
    const reader = readable.getReader();
    expect((await reader.read()).done).toBe(false);
    await reader.cancel();
    await untilIdle(engine);
  });

  it("lets others run while a consumer does not read", async () => {
    const unread = await engine.chat.completions.create({ ...long, stream: true });
    const other = await engine.chat.completions.create({
      messages: hello,
      max_tokens: 4,
      ...greedy,
    });
    expect(other.usage.completion_tokens).toBe(4);
    await untilIdle(engine); // The unread one ran to its end on its own.
    expect((await readText(unread)).length).toBeGreaterThan(0);
  });

  it("reads a stream once", async () => {
    const stream = await engine.chat.completions.create({ ...long, max_tokens: 2, stream: true });
    expect(await readText(stream)).not.toBe("");
    expect((await errorOf(readText(stream))).code).toBe("invalid-argument");
  });
});

describe("plain completions", () => {
  it("takes texts and token ids, one or many", async () => {
    const params = { max_tokens: 5, ...greedy };
    const text = "The system and the user";
    const tokens = await engine.tokenize(text);
    const one = await engine.completions.create({ prompt: text, ...params });
    expect(one).toMatchObject({ object: "text_completion" });
    const many = await engine.completions.create({ prompt: [tokens, [70, 71]], n: 2, ...params });
    expect(many.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(many.choices[0]!.text).toBe(one.choices[0]!.text);
    expect(many.choices[3]!.text).toBe(many.choices[2]!.text);
    expect(many.usage).toMatchObject({ prompt_tokens: tokens.length + 2, completion_tokens: 20 });
    const stream = await engine.completions.create({ prompt: text, ...params, stream: true });
    let streamed = "";
    for await (const chunk of stream) streamed += chunk.choices[0]!.text;
    expect(streamed).toBe(one.choices[0]!.text);
  });

  it("reports log-probabilities with text offsets", async () => {
    const prompt = "The system";
    const { choices } = await engine.completions.create({
      prompt,
      logprobs: 2,
      max_tokens: 6,
      ...greedy,
    });
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect(tokens).toHaveLength(6);
    expect(token_logprobs).toHaveLength(6);
    expect(top_logprobs.every((top) => Object.keys(top).length <= 2)).toBe(true);
    expect(text_offset[0]).toBe(0);
    for (const [i, offset] of text_offset.entries()) {
      expect(offset).toBeGreaterThanOrEqual(text_offset[i - 1] ?? 0);
      expect(offset).toBeLessThanOrEqual(choices[0]!.text.length);
    }
  });

  it("fails as a whole when one prompt is refused", async () => {
    const error = await errorOf(
      engine.completions.create({ prompt: [[70], [9999]], max_tokens: 50 }),
    );
    expect(error).toMatchObject({ code: "invalid-argument" });
    expect(error.message).toContain("9999");
    await untilIdle(engine);
  });
});

describe("bad requests", () => {
  it.each<[object, string, string]>([
    [{ messages: [] }, "invalid-argument", "messages"],
    [{ messages: "hi" }, "invalid-argument", "messages"],
    [{ messages: [5] }, "invalid-argument", "messages[0]"],
    [{ messages: [{ role: "king", content: "" }] }, "invalid-argument", "messages[0].role"],
    [{ messages: [{ role: "tool", content: "" }] }, "unsupported", "messages[0].role"],
    [{ messages: [{ role: "user" }] }, "invalid-argument", "messages[0].content"],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "unsupported", "type"],
    [{ messages: [{ role: "user", content: "", name: "x" }] }, "unsupported", "messages[0].name"],
    [{ temperature: -0.1 }, "invalid-argument", "temperature"],
    [{ temperature: 2.1 }, "invalid-argument", "temperature"],
    [{ temperature: "1" }, "invalid-argument", "temperature"],
    [{ temperature: Number.NaN }, "invalid-argument", "temperature"],
    [{ top_p: 0 }, "invalid-argument", "top_p"],
    [{ top_p: 1.1 }, "invalid-argument", "top_p"],
    [{ top_k: 1.5 }, "invalid-argument", "top_k"],
    [{ top_k: -2 }, "invalid-argument", "top_k"],
    [{ min_p: 2 }, "invalid-argument", "min_p"],
    [{ n: 0 }, "invalid-argument", "n"],
    [{ n: 129 }, "invalid-argument", "n"],
    [{ max_tokens: 0 }, "invalid-argument", "max_tokens"],
    [{ max_tokens: 5, max_completion_tokens: 6 }, "invalid-argument", "max_tokens"],
    [{ seed: 0.5 }, "invalid-argument", "seed"],
    [{ stop: 7 }, "invalid-argument", "stop"],
    [{ stop: ["a", ""] }, "invalid-argument", "stop[1]"],
    [{ stop: Array(17).fill("x") }, "invalid-argument", "stop"],
    [{ stop_token_ids: 5 }, "invalid-argument", "stop_token_ids"],
    [{ stop_token_ids: [-1] }, "invalid-argument", "stop_token_ids[0]"],
    [{ stop_token_ids: [300] }, "invalid-argument", "stop_token_ids[0]"],
    [{ logit_bias: { x: 1 } }, "invalid-argument", "logit_bias"],
    [{ logit_bias: { 5: 101 } }, "invalid-argument", "logit_bias"],
    [{ logit_bias: { 300: 1 } }, "invalid-argument", "logit_bias"],
    [{ presence_penalty: 3 }, "invalid-argument", "presence_penalty"],
    [{ frequency_penalty: -3 }, "invalid-argument", "frequency_penalty"],
    [{ repetition_penalty: 0 }, "invalid-argument", "repetition_penalty"],
    [{ logprobs: 1 }, "invalid-argument", "logprobs"],
    [{ top_logprobs: 2 }, "invalid-argument", "top_logprobs"],
    [{ logprobs: true, top_logprobs: 21 }, "invalid-argument", "top_logprobs"],
    [{ stream: "yes" }, "invalid-argument", "stream"],
    [{ stream_options: { include_usage: true } }, "invalid-argument", "stream_options"],
    [{ stream: true, stream_options: { x: 1 } }, "unsupported", "stream_options.x"],
    [{ signal: 5 }, "invalid-argument", "signal"],
    [{ model: 5 }, "invalid-argument", "model"],
    [{ response_format: { type: "json_object" } }, "unsupported", "response_format"],
    [{ tools: [] }, "unsupported", "tools"],
    [{ tool_choice: "auto" }, "unsupported", "tool_choice"],
    [{ functions: [] }, "unsupported", "functions"],
    [{ audio: {} }, "unsupported", "audio"],
    [{ temprature: 1 }, "unsupported", "temprature"],
  ])("refuses %j", async (fields, code, named) => {
    const params = { messages: hello, max_tokens: 2, ...fields };
    const error = await errorOf(engine.chat.completions.create(params as never));
    expect(error.code).toBe(code);
    expect(error.message).toContain(`\`${named}`.replace("`type", "type"));
  });

  it.each<[object, string]>([
    [{ prompt: "" }, "prompt"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: 5 }, "prompt"],
    [{ prompt: ["a", 5] }, "prompt[1]"],
    [{ prompt: [1, "a"] }, "prompt[1]"],
    [{ prompt: [300] }, "prompt[0]"],
    [{ prompt: "a", logprobs: 21 }, "logprobs"],
  ])("refuses the completion %j", async (fields, named) => {
    const error = await errorOf(engine.completions.create(fields as never));
    expect(error.code).toBe("invalid-argument");
    expect(error.message).toContain(named);
  });

  it("treats null as absent", async () => {
    const { usage } = await engine.chat.completions.create({
      messages: hello,
      max_tokens: 2,
      ignore_eos: true,
      temperature: null,
      stop: null,
      n: null,
      seed: null,
      logit_bias: null,
      stream: null,
      signal: null,
    });
    expect(usage.completion_tokens).toBe(2);
  });

  it("refuses what can never fit, with the numbers", async () => {
    const messages: ChatMessage[] = [{ role: "user", content: "much too long ".repeat(40) }];
    const overflow = await errorOf(engine.chat.completions.create({ messages, stream: true }));
    expect(overflow.code).toBe("context-overflow");
    expect(overflow.data).toMatchObject({ maxContext: 256 });
    const small = await create({ kvCacheBlocks: 4 });
    const params = { messages: hello, max_tokens: 100, ...greedy };
    const pool = await errorOf(small.chat.completions.create(params));
    expect(pool.code).toBe("kv-pool-too-small");
    expect(pool.data).toMatchObject({ total: 4 });
    // Without max_tokens it ends where the pool does.
    const { usage } = await small.chat.completions.create({ messages: hello, ...greedy });
    expect(usage.total_tokens).toBe(64);
    await small.dispose();
  });
});

describe("endings", () => {
  const long = { messages: hello, max_tokens: 200, ...greedy };

  it("dispose rejects what is pending, ends the worker and can be called again", async () => {
    const worker = createLoopbackWorker();
    const own = await create({ worker });
    const pending = errorOf(own.chat.completions.create(long));
    const stream = await own.chat.completions.create({ ...long, stream: true });
    const reading = errorOf(readText(stream));
    await Promise.all([own.dispose(), own.dispose(), own[Symbol.asyncDispose]()]);
    expect((await pending).code).toBe("disposed");
    expect((await reading).code).toBe("disposed");
    expect(worker.isTerminated).toBe(true);
    expect((await errorOf(own.stats())).code).toBe("disposed");
    expect((await errorOf(own.chat.completions.create(long))).code).toBe("disposed");
    expect((await errorOf(own.tokenize("x"))).code).toBe("disposed");
  });

  it("a crashed worker rejects every call and ends every stream", async () => {
    const worker = createLoopbackWorker();
    const own = await create({ worker });
    const pending = errorOf(own.chat.completions.create(long));
    const reading = errorOf(readText(await own.chat.completions.create({ ...long, stream: true })));
    worker.crash("Uncaught RangeError");
    expect(await pending).toMatchObject({ code: "worker-failed" });
    expect((await reading).message).toContain("Uncaught RangeError");
    expect((await errorOf(own.stats())).code).toBe("worker-failed");
    expect(worker.isTerminated).toBe(true);
    await own.dispose();
  });

  it("a worker that fails to start or never answers is `worker-failed`", async () => {
    const silent = createWorkerShell(() => {});
    const late = await errorOf(create({ worker: silent, workerTimeoutMs: 50 }));
    expect(late.code).toBe("worker-failed");
    expect(late.message).toContain("worker-src");
    expect(silent.isTerminated).toBe(true);
    const broken = createWorkerShell(() => broken.crash(""));
    expect((await errorOf(create({ worker: broken }))).code).toBe("worker-failed");
    const throwing = () => {
      throw new Error("SecurityError");
    };
    expect((await errorOf(create({ worker: throwing }))).code).toBe("worker-failed");
  });

  it("an error that the back end reports fails all requests and later calls", async () => {
    let report = (_: Error): void => {};
    const lost = new Promise<Error>((resolve) => {
      report = resolve;
    });
    const createBackend = (): Backend => Object.assign(createReferenceBackend(), { lost });
    const own = await create({ worker: createLoopbackWorker(createBackend) });
    const pending = errorOf(own.chat.completions.create(long));
    while ((await own.stats()).sequences.running === 0);
    report(new QuireError("internal", "WebGPU reported an error."));
    expect(await pending).toMatchObject({ code: "internal", message: "WebGPU reported an error." });
    expect((await errorOf(own.stats())).code).toBe("internal");
    expect((await errorOf(own.chat.completions.create(long))).code).toBe("internal");
    await own.dispose();
  });

  it("a back end that fails a step fails all requests with its error", async () => {
    const createBackend = (): Backend => {
      const backend = createReferenceBackend();
      const createPlanBuilder: Backend["createPlanBuilder"] = (spec) => {
        const builder = backend.createPlanBuilder(spec);
        const finish = builder.finish.bind(builder);
        builder.finish = async (signal) => {
          const plan = await finish(signal);
          const submit = plan.submit.bind(plan);
          plan.submit = (step) =>
            step.id < 3
              ? submit(step)
              : { result: Promise.reject(new QuireError("out-of-memory", "No room for step 3.")) };
          return plan;
        };
        return builder;
      };
      return { ...backend, createPlanBuilder };
    };
    const own = await create({ worker: createLoopbackWorker(createBackend) });
    const error = await errorOf(own.chat.completions.create(long));
    expect(error).toMatchObject({ code: "out-of-memory", message: "No room for step 3." });
    await own.dispose();
  });
});
