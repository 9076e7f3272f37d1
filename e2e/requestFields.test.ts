import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../src/client/createEngine.ts";
import type {
  ChatChoice,
  ChatCompletionChunk,
  ChatMessage,
  EngineOptions,
  QuireEngine,
} from "../src/client/types.ts";
import { QuireError } from "../src/errors.ts";
import { createLoopbackWorker } from "./fixtures/loopbackWorker.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

// Fields of requests that are the engine's to fulfil, through the public API, on the reference back end.

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 512 }).buffer;
const question = "Hello there, what is this?";
const hello: ChatMessage[] = [{ role: "user", content: question }];
const sampled = { messages: hello, max_tokens: 6, ignore_eos: true, return_token_ids: true };

let engine: QuireEngine;
const create = (options: Partial<EngineOptions> = {}): Promise<QuireEngine> =>
  createEngine({ model, worker: () => createLoopbackWorker(), ...options });

beforeAll(async () => {
  engine = await create();
});
afterAll(async () => {
  await engine.dispose();
});

async function errorOf(promise: Promise<unknown>): Promise<QuireError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(QuireError);
  return error as QuireError;
}

async function read(stream: AsyncIterable<ChatCompletionChunk>) {
  const chunks: ChatCompletionChunk["choices"][number][] = [];
  for await (const { choices } of stream) chunks.push(...choices);
  return chunks;
}

/** Sum of a choice's log-probabilities. */
const sumOf = ({ logprobs }: ChatChoice) =>
  logprobs!.content.reduce((sum, { logprob }) => sum + logprob, 0);

describe("best_of", () => {
  const drawn = { ...sampled, temperature: 1.5, seed: 5, max_tokens: 7 };

  it("gives the n samples with the highest mean log-probability, best first", async () => {
    const all = await engine.chat.completions.create({ ...drawn, n: 6, logprobs: true });
    const mean = (choice: ChatChoice) => sumOf(choice) / choice.token_ids!.length;
    const best = all.choices.toSorted((a, b) => mean(b) - mean(a)).slice(0, 2);
    const chosen = await engine.chat.completions.create({ ...drawn, n: 2, best_of: 6 });
    expect(chosen.choices.map(({ token_ids }) => token_ids)).toEqual(
      best.map(({ token_ids }) => token_ids),
    );
    for (const [i, choice] of chosen.choices.entries()) {
      expect(choice.index).toBe(i);
      expect(choice.logprobs).toBeNull();
      expect(choice.cumulative_logprob).toBeCloseTo(sumOf(best[i]!), 4);
      expect(choice.message.content).toBe(best[i]!.message.content);
    }
    for (const choice of all.choices) {
      expect(choice.cumulative_logprob).toBeCloseTo(sumOf(choice), 4);
    }
    const plain = await engine.chat.completions.create(sampled);
    expect(plain.choices[0]).not.toHaveProperty("cumulative_logprob");
    expect(chosen.usage.completion_tokens).toBe(14);
  });

  it("streams each of them whole, at the end", async () => {
    const params = { ...drawn, n: 2, best_of: 4 };
    const { choices } = await engine.chat.completions.create(params);
    const chunks = await read(await engine.chat.completions.create({ ...params, stream: true }));
    expect(
      chunks.map(({ index, token_ids, finish_reason }) => [index, token_ids, finish_reason]),
    ).toEqual(choices.map(({ index, token_ids }) => [index, token_ids, "length"]));
    expect(chunks.map(({ delta }) => delta.content)).toEqual(
      choices.map(({ message }) => message.content),
    );
    expect(chunks[0]!.cumulative_logprob).toBe(choices[0]!.cumulative_logprob);
  });
});

describe("beam search", () => {
  const beams = { ...sampled, use_beam_search: true };

  it("of width 1 is greedy", async () => {
    const greedy = await engine.chat.completions.create({
      ...sampled,
      temperature: 0,
      logprobs: true,
    });
    const beam = await engine.chat.completions.create({ ...beams, beam_width: 1 });
    expect(beam.choices[0]!.token_ids).toEqual(greedy.choices[0]!.token_ids);
    expect(beam.choices[0]!.cumulative_logprob).toBeCloseTo(sumOf(greedy.choices[0]!), 4);
  });

  it("gives the n best, best first; a stream has one chunk for each", async () => {
    const params = { ...beams, beam_width: 4, n: 3 };
    const { choices, usage } = await engine.chat.completions.create(params);
    const sums = choices.map((choice) => choice.cumulative_logprob!);
    expect(sums).toEqual(sums.toSorted((a, b) => b - a));
    expect(new Set(choices.map(({ token_ids }) => String(token_ids))).size).toBe(3);
    expect(usage.completion_tokens).toBe(18);
    // The log-probabilities are the model's own: those of the same tokens, forced.
    const [best] = choices;
    const prompt = await promptIds();
    const forced = await engine.completions.create({
      prompt: [...prompt, ...best!.token_ids!],
      max_tokens: 0,
      prompt_logprobs: 0,
    });
    const places = forced.choices[0]!.prompt_logprobs!.slice(prompt.length);
    const sum = places.reduce((all, place) => all + Object.values(place!)[0]!.logprob, 0);
    expect(best!.cumulative_logprob).toBeCloseTo(sum, 3);

    const chunks = await read(await engine.chat.completions.create({ ...params, stream: true }));
    expect(chunks.map(({ index, token_ids }) => [index, token_ids])).toEqual(
      choices.map(({ index, token_ids }) => [index, token_ids]),
    );
    expect(chunks.map(({ cumulative_logprob }) => cumulative_logprob)).toEqual(sums);
  });

  it("works for plain completions of several prompts, beside other requests", async () => {
    const params = { prompt: ["The user", "is in"], max_tokens: 5, ignore_eos: true };
    const search = { ...params, use_beam_search: true, beam_width: 3, n: 2 };
    const [together, other] = await Promise.all([
      engine.completions.create(search),
      engine.chat.completions.create({ ...sampled, temperature: 0 }),
    ]);
    expect(together.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    for (const [i, prompt] of params.prompt.entries()) {
      const alone = await engine.completions.create({ ...search, prompt });
      const texts = together.choices.slice(i * 2, i * 2 + 2).map(({ text }) => text);
      expect(texts).toEqual(alone.choices.map(({ text }) => text));
    }
    const again = await engine.chat.completions.create({ ...sampled, temperature: 0 });
    expect(other.choices[0]!.token_ids).toEqual(again.choices[0]!.token_ids);
  });
});

/** Ids of the prompt that a first message becomes. */
async function promptIds(content = question): Promise<number[]> {
  const text = `<|im_start|>user\n${content}<|im_end|>\n<|im_start|>assistant\n`;
  return engine.tokenize(text, { specialTokens: true });
}

describe("deadline_ms", () => {
  const long = { ...sampled, max_tokens: 400, temperature: 0, deadline_ms: 150 };

  it("fails a whole answer with what there is by then", async () => {
    const error = await errorOf(engine.chat.completions.create({ ...long, n: 2 }));
    expect(error.code).toBe("deadline-exceeded");
    expect(error.message).toContain("150 ms");
    const { choices } = error.data as unknown as {
      choices: { index: number; text: string; token_ids: number[]; finish_reason: null }[];
    };
    expect(choices.map(({ index }) => index)).toEqual([0, 1]);
    for (const { text, token_ids, finish_reason } of choices) {
      expect(token_ids.length).toBeGreaterThan(0);
      expect(token_ids.length).toBeLessThan(400);
      expect(finish_reason).toBeNull();
      expect(text).toBe(await engine.detokenize(token_ids));
    }
    const { sequences, kv } = await engine.stats();
    expect(sequences.running + sequences.waiting + kv.blocksUsed).toBe(0);
  });

  it("a stream delivers what came, and then throws it", async () => {
    const stream = await engine.chat.completions.create({ ...long, stream: true });
    let text = "";
    const ids: number[] = [];
    const error = await errorOf(
      (async () => {
        for await (const { choices } of stream) {
          text += choices[0]?.delta.content ?? "";
          ids.push(...(choices[0]?.token_ids ?? []));
        }
      })(),
    );
    expect(error.code).toBe("deadline-exceeded");
    expect(error.data["choices"]).toEqual([
      { index: 0, text, token_ids: ids, finish_reason: null },
    ]);
    expect(ids.length).toBeGreaterThan(0);
  });

  it("leaves alone what is done in time", async () => {
    const { choices } = await engine.chat.completions.create({ ...sampled, deadline_ms: 60_000 });
    expect(choices[0]!.finish_reason).toBe("length");
  });
});

describe("what is shared and kept", () => {
  const cached = async (fields: object): Promise<number> => {
    const params = { ...sampled, max_tokens: 2, ...fields };
    const { usage } = await engine.chat.completions.create(params);
    return usage.prompt_tokens_details.cached_tokens;
  };
  const say = (content: string) => ({ messages: [{ role: "user" as const, content }] });

  it("cache_salt: prefixes are shared among equal salts", async () => {
    const ask = say("A long question that nobody has asked before this one. ".repeat(2));
    expect(await cached({ ...ask, cache_salt: "a" })).toBe(0);
    expect(await cached({ ...ask, cache_salt: "b" })).toBe(0);
    // Without a salt the beginning of every chat is shared.
    expect(await cached(ask)).toBeLessThan(16);
    for (const salt of ["a", "b", null]) {
      expect(await cached({ ...ask, cache_salt: salt })).toBeGreaterThan(90);
    }
  });

  it("resetPrefixCache forgets all, and refuses while something runs", async () => {
    const ask = say("Something to be forgotten at once, and asked again. ".repeat(2));
    await cached(ask);
    expect(await cached(ask)).toBeGreaterThan(80);
    const stream = await engine.chat.completions.create({
      ...sampled,
      max_tokens: 100,
      stream: true,
    });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    expect(await engine.resetPrefixCache()).toBe(false);
    await iterator.return?.();
    while ((await engine.stats()).kv.blocksUsed > 0);
    expect(await engine.resetPrefixCache()).toBe(true);
    expect(await cached(ask)).toBe(0);
  });

  it("keep: the prompt outlives what a pool would else evict; endSession lets it go", async () => {
    const own = await create({ kvCacheBlocks: 24 });
    const ask = async (content: string, fields: object = {}): Promise<number> => {
      const { usage } = await own.chat.completions.create({
        ...sampled,
        ...say(content),
        ...fields,
      });
      return usage.prompt_tokens_details.cached_tokens;
    };
    const document = "The document to be kept. ".repeat(5);
    const flood = async () => {
      for (let i = 0; i < 8; i++) await ask(`${i} is another question. `.repeat(5));
    };
    await ask(document, { keep: true, session: "reader" });
    await flood();
    expect(await ask(document, { keep: true, session: "reader" })).toBeGreaterThan(90);
    await own.endSession("reader");
    await flood();
    expect(await ask(document)).toBeLessThan(32);
    const error = await errorOf(own.endSession(""));
    expect(error).toMatchObject({ code: "invalid-argument" });
    await own.dispose();
  });
});

describe("order and speed", () => {
  it("priority: the lower number goes first when places are few", async () => {
    const own = await create({ maxSequences: 1 });
    const order: string[] = [];
    const run = async (name: string, fields: object) => {
      await own.chat.completions.create({ ...sampled, max_tokens: 12, ...fields });
      order.push(name);
    };
    await Promise.all([
      run("first", { max_tokens: 30 }),
      run("late", { priority: 5 }),
      run("early", { priority: -5 }),
    ]);
    expect(order.indexOf("early")).toBeLessThan(order.indexOf("late"));
    await own.dispose();
  });

  it("num_speculative_tokens: the same tokens, in fewer steps where text repeats", async () => {
    const prompt = "one in the system and one in the user and ".repeat(4);
    const run = async (num_speculative_tokens: number) => {
      const own = await create();
      const { choices } = await own.completions.create({
        ...{ prompt, max_tokens: 60, temperature: 0, ignore_eos: true, return_token_ids: true },
        num_speculative_tokens,
      });
      const { totals, metrics } = await own.stats();
      await own.dispose();
      return { ids: choices[0]!.token_ids, steps: totals.steps, metrics };
    };
    const without = await run(0);
    const drafted = await run(4);
    expect(drafted.ids).toEqual(without.ids);
    expect(without.metrics.spec_decode_num_draft_tokens).toBe(0);
    const { spec_decode_num_draft_tokens: drafts, spec_decode_num_accepted_tokens: accepted } =
      drafted.metrics;
    expect(accepted).toBeGreaterThan(5);
    expect(drafts).toBeGreaterThanOrEqual(accepted);
    expect(drafted.steps).toBeLessThan(without.steps - accepted / 2);
  });
});

describe("what the engine tells", () => {
  it("stats have vLLM's metrics, times between tokens, and nothing stalled", async () => {
    const own = await create();
    await own.chat.completions.create({ ...sampled, n: 2 });
    const stats = await own.stats();
    expect(stats.metrics).toMatchObject({
      generation_tokens: 12,
      request_success: { length: 2, stop: 0, abort: 0, deadline: 0, error: 0 },
      inter_token_latency_seconds: { count: 10 },
      time_to_first_token_seconds: { count: 2 },
      num_preemptions: 0,
    });
    expect(stats.timing.interTokenMsP50).toBeGreaterThan(0);
    expect(stats.timing.interTokenMsP99).toBeGreaterThanOrEqual(stats.timing.interTokenMsP50);
    expect(stats.stalled).toEqual([]);
    expect(stats.sequences).toEqual({ running: 0, waiting: 0, swapped: 0 });
    expect(stats.totals.swaps).toBe(0);
    expect(stats.memory.swappedBytes).toBe(0);
    await own.dispose();
  });

  it("events name preemptions and evictions with reason and cost, in order", async () => {
    const own = await create({ kvCacheBlocks: 12, maxSequences: 4, swapBytes: 0 });
    const ask = (i: number) =>
      own.chat.completions.create({
        ...sampled,
        max_tokens: 90,
        messages: [{ role: "user", content: `Question ${i}` }],
      });
    await Promise.all([0, 1, 2, 3].map(ask));
    const events = await own.events();
    const { totals } = await own.stats();
    expect(totals.preemptions).toBeGreaterThan(0);
    const preempted = events.filter((event) => event.kind === "preempt");
    expect(preempted).toHaveLength(totals.preemptions);
    for (const event of preempted) {
      expect(event).toMatchObject({ reason: "blocks", how: "recompute" });
      expect(event.blocksFreed).toBeGreaterThan(0);
      expect(event.kvUsageBefore).toBeGreaterThan(event.kvUsageAfter);
    }
    expect(events.some((event) => event.kind === "evict" && event.tokens > 0)).toBe(true);
    const times = events.map(({ timeMs }) => timeMs);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    await own.dispose();
  });
});
