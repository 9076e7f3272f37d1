import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../src/client/createEngine.ts";
import type { CompletionChunk, PromptLogprobs, QuireEngine } from "../src/client/types.ts";
import { QuireError } from "../src/errors.ts";
import { makePlan, makeStep } from "./fixtures/drivePlan.ts";
import { createLoopbackWorker } from "./fixtures/loopbackWorker.ts";
import { Random } from "./fixtures/random.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

const CONTEXT = 128;
const model = makeTinyModel({ layers: 2, seed: 5, contextLength: CONTEXT });
const random = new Random(3);
const prompt = Array.from({ length: 45 }, () => random.integer(3, 299));
const greedy = { temperature: 0, ignore_eos: true };

function create(options: object = {}): Promise<QuireEngine> {
  return createEngine({
    model: model.buffer,
    worker: () => createLoopbackWorker(),
    kvCacheDtype: "f32",
    ...options,
  });
}

/** ln p of all tokens after each of a prompt's: one row a step, in float64. [position][token] */
async function logprobsOf(tokens: readonly number[]): Promise<readonly Float64Array[]> {
  const plan = await makePlan(model, { kvCacheDtype: "f32", kvBlocks: 8, maxContext: CONTEXT });
  const all: Float64Array[] = [];
  const blocks = [3, 0, 6, 1, 5, 2, 4, 7];
  for (const [start, token] of tokens.entries()) {
    const row = { slot: 0, tokens: [token], start, blocks, isSampled: true };
    await plan.submit(makeStep(start, 16, [row])).result;
    const logits = Float64Array.from(await plan.readLogits());
    const most = Math.max(...logits);
    const mass = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
    all.push(logits.map((logit) => logit - most - Math.log(mass)));
  }
  plan.dispose();
  return all;
}

let engine: QuireEngine;
let expected: readonly Float64Array[];
beforeAll(async () => {
  engine = await create();
  expected = await logprobsOf(prompt);
});
afterAll(() => engine.dispose());

/** That `found` is what float64 says of the prompt, with the `top` best tokens at each place. */
function check(found: PromptLogprobs | undefined, top: number): void {
  expect(found).toHaveLength(prompt.length);
  expect(found![0]).toBeNull();
  for (const [i, token] of prompt.slice(1).entries()) {
    const logprobs = expected[i]!;
    const ranked = [...logprobs.keys()].sort((a, b) => logprobs[b]! - logprobs[a]! || a - b);
    const entry = found![i + 1]!;
    const wanted = new Set([token, ...ranked.slice(0, top)]);
    expect(Object.keys(entry).map(Number)).toEqual([...wanted].sort((a, b) => a - b));
    for (const id of wanted) {
      expect(entry[id]!.logprob).toBeCloseTo(logprobs[id]!, 10);
      expect(entry[id]!.rank).toBe(ranked.indexOf(id) + 1);
    }
  }
}

async function errorOf(promise: Promise<unknown>): Promise<QuireError> {
  const error = await promise.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(QuireError);
  return error as QuireError;
}

describe("prompt_logprobs", () => {
  it.each([0, 1, 5, 20])("of a completion equal float64 with the %i best tokens", async (top) => {
    const params = { prompt, max_tokens: 2, prompt_logprobs: top, ...greedy };
    const { choices } = await engine.completions.create(params);
    check(choices[0]!.prompt_logprobs, top);
    expect(choices[0]!.text).not.toBe("");
  });

  it("are the same in chunks of any size, beside other requests and with a warm prefix cache", async () => {
    const alone = await engine.completions.create({ prompt, max_tokens: 1, prompt_logprobs: 2 });
    const scores = alone.choices[0]!.prompt_logprobs;
    const warm = await engine.completions.create({ prompt, max_tokens: 1 });
    const { prompt_tokens, prompt_tokens_details } = warm.usage;
    expect(prompt_tokens_details.cached_tokens).toBe(prompt_tokens - 1);
    for (const maxSequences of [1, 3, 16]) {
      const own = await create({ maxSequences });
      const ask = (tokens: number[], fields: object) =>
        own.completions.create({ prompt: tokens, max_tokens: 12, ...greedy, ...fields });
      const [, found, , again] = await Promise.all([
        ask(prompt.slice(0, 20), {}),
        ask(prompt, { prompt_logprobs: 2 }),
        ask(prompt.slice(7), { prompt_logprobs: 1 }),
        ask(prompt, { prompt_logprobs: 2, n: 2 }),
      ]);
      expect(found!.choices[0]!.prompt_logprobs).toEqual(scores);
      expect(again!.choices[1]!.prompt_logprobs).toEqual(scores);
      expect(again!.usage.prompt_tokens_details.cached_tokens).toBe(0);
      await own.dispose();
    }
  });

  it("survive preemption", async () => {
    // One row a step while two others decode, who need its blocks before it is through.
    const own = await create({ maxSequences: 3, kvCacheBlocks: 8 });
    const ask = (fields: object) =>
      own.completions.create({ prompt, prompt_logprobs: 3, ...greedy, ...fields });
    const found = await Promise.all([
      own.completions.create({ prompt: [7], max_tokens: 60, ...greedy }),
      own.completions.create({ prompt: [9], max_tokens: 60, ...greedy }),
      ask({ max_tokens: 40 }),
    ]);
    check(found[2]!.choices[0]!.prompt_logprobs, 3);
    expect((await own.stats()).totals.preemptions).toBeGreaterThan(0);
    await own.dispose();
  });

  it("need no answer: `max_tokens` may be 0, and the prompt fill the context", async () => {
    const params = { prompt, max_tokens: 0, prompt_logprobs: 1 };
    const { choices, usage } = await engine.completions.create(params);
    check(choices[0]!.prompt_logprobs, 1);
    expect(choices[0]).toMatchObject({ text: "", finish_reason: "length" });
    expect(usage).toMatchObject({ prompt_tokens: prompt.length, completion_tokens: 0 });
    const long = Array.from({ length: CONTEXT }, (_, i) => 5 + i);
    const full = await engine.completions.create({ ...params, prompt: long });
    expect(full.choices[0]!.prompt_logprobs).toHaveLength(CONTEXT);
    const over = errorOf(engine.completions.create({ ...params, prompt: [...long, 5] }));
    expect(await over).toMatchObject({ code: "context-overflow" });
    const alone = await engine.completions.create({ ...params, prompt: [70] });
    expect(alone.choices[0]!.prompt_logprobs).toEqual([null]);
  });

  it("belong to their prompt, in every choice of it", async () => {
    const other = prompt.toReversed();
    const params = { prompt: [prompt, other], n: 2, max_tokens: 3, prompt_logprobs: 2 };
    const { choices } = await engine.completions.create(params);
    for (const choice of choices.slice(0, 2)) check(choice.prompt_logprobs, 2);
    expect(choices[2]!.prompt_logprobs).toHaveLength(other.length);
    expect(choices[2]!.prompt_logprobs).not.toEqual(choices[1]!.prompt_logprobs);
    expect(choices[3]!.prompt_logprobs).toEqual(choices[2]!.prompt_logprobs);
    expect(choices[0]!.prompt_logprobs).not.toBe(choices[1]!.prompt_logprobs);
  });

  it("come with the first chunk of each choice of a stream, and only with it", async () => {
    const stream = await engine.completions.create({
      prompt,
      n: 2,
      max_tokens: 5,
      prompt_logprobs: 2,
      return_token_ids: true,
      stream: true,
      ...greedy,
    });
    const seen: CompletionChunk["choices"][] = [[], []];
    for await (const { choices } of stream) seen[choices[0]!.index]!.push(choices[0]!);
    for (const [first, ...rest] of seen) {
      check(first!.prompt_logprobs, 2);
      expect(rest.length).toBeGreaterThan(0);
      for (const chunk of rest) expect(chunk).not.toHaveProperty("prompt_logprobs");
    }
  });

  it("of a chat are of the templated prompt: on the completion, or on the stream's first chunk", async () => {
    const params = {
      messages: [{ role: "user", content: "What is this?" }] as const,
      max_tokens: 3,
      prompt_logprobs: 1,
      n: 2,
      ...greedy,
    };
    const completion = await engine.chat.completions.create(params);
    const scores = completion.prompt_logprobs!;
    expect(scores).toHaveLength(completion.usage.prompt_tokens);
    const ids = await engine.tokenize("<|im_start|>user\nWhat is this?", { specialTokens: true });
    for (const [i, id] of ids.slice(1).entries()) {
      expect(scores[i + 1]![id]!.decoded_token).toBe(await engine.detokenize([id]));
    }
    const end = await engine.tokenize("<|im_end|>", { specialTokens: true });
    expect(scores[ids.length]![end[0]!]!.decoded_token).toBe("<|im_end|>");
    const stream = await engine.chat.completions.create({ ...params, stream: true });
    const found: (PromptLogprobs | undefined)[] = [];
    for await (const chunk of stream) found.push(chunk.prompt_logprobs);
    expect(found[0]).toEqual(scores);
    expect(found.slice(1).every((logprobs) => logprobs === undefined)).toBe(true);
  });

  it("are absent where they are not asked for", async () => {
    const { choices } = await engine.completions.create({ prompt, max_tokens: 1 });
    expect(choices[0]).not.toHaveProperty("prompt_logprobs");
    const messages = [{ role: "user", content: "Hi" }] as const;
    const chat = await engine.chat.completions.create({ messages, max_tokens: 1 });
    expect(chat).not.toHaveProperty("prompt_logprobs");
  });

  it("leave nothing behind when their request is aborted", async () => {
    const abort = new AbortController();
    const own = await create({ maxSequences: 1 }); // a row a step
    const params = { prompt, max_tokens: 0, prompt_logprobs: 1, signal: abort.signal };
    const pending = errorOf(own.completions.create(params));
    while ((await own.stats()).totals.steps < 3);
    abort.abort();
    expect((await pending).code).toBe("aborted");
    const { choices } = await own.completions.create({ prompt, max_tokens: 0, prompt_logprobs: 0 });
    check(choices[0]!.prompt_logprobs, 0);
    expect((await own.stats()).kv.blocksUsed).toBe(0);
    await own.dispose();
  });

  it.each([
    [{ prompt_logprobs: 21 }, "prompt_logprobs"],
    [{ prompt_logprobs: -1 }, "prompt_logprobs"],
    [{ prompt_logprobs: 1.5 }, "prompt_logprobs"],
    [{ prompt_logprobs: true }, "prompt_logprobs"],
    [{ max_tokens: 0 }, "max_tokens"],
    [{ max_tokens: -1, prompt_logprobs: 0 }, "max_tokens"],
  ])("are refused as %j", async (fields, named) => {
    const bad = { prompt: [70, 71], max_tokens: 1, ...fields };
    const error = await errorOf(engine.completions.create(bad as never));
    expect(error.code).toBe("invalid-argument");
    expect(error.message).toContain(`\`${named}\``);
  });
});
