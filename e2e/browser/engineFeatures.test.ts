import type { Browser, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { ensureDefaultModel } from "../../scripts/lib/model.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { type NextTokens, plainBeamSearch } from "../suites/plainBeamSearch.ts";
import { LIBRARY_PAGE, openChromium, openPageAt, openSite, type Site } from "./site.ts";

// What the engine does with sequences, seen from a page: the default model on WASM, a tiny one on WebGPU.

const BLOCK_SIZE = 16;
const BEAM_TOKENS = 10;
/** <|im_end|> of both models. */
const END_TOKEN = 2;
const LINES = [
  "The quick brown fox jumps over the lazy dog near the river bank.",
  "Every morning the old clock tower rings seven times before sunrise.",
  "A jar of honey, two lemons and fresh mint make a fine summer drink.",
].join(" ");

/** What came of a request, and what it cost the engine. */
interface Outcome {
  readonly ids: readonly (readonly number[])[];
  readonly usage: Quire.CompletionUsage;
  readonly steps: number;
  readonly rows: number;
  readonly blocksPeak: number;
  readonly metrics: Quire.EngineStats["metrics"];
}

type Given = Omit<Quire.EngineOptions, "model" | "worker">;
type Fields = Partial<Quire.ChatCompletionParamsNonStreaming>;

declare const quire: typeof Quire;
/** With room for all: the pool, the slots and the host memory of a default engine and more. */
declare const engine: Quire.QuireEngine;
declare function openEngine(given?: Given): Promise<Quire.QuireEngine>;
declare function ask(engine: Quire.QuireEngine, content: string, given: Fields): Promise<Outcome>;

let site: Site;
let browser: Browser;
let closeBrowser: () => Promise<void>;

beforeAll(async () => {
  await ensureLibrary();
  const model = await ensureDefaultModel();
  site = await openSite(
    {
      "index.html": LIBRARY_PAGE,
      "tiny.gguf": makeTinyModel({ type: "Q4_1", layers: 2, seed: 31, contextLength: 1024 }),
    },
    { files: { "/index.js": inRoot("dist/index.js"), "/smollm2.gguf": model.path } },
  );
  ({ browser, close: closeBrowser } = await openChromium());
});

afterAll(async () => {
  await closeBrowser?.();
  await site?.close();
});

describe.each([
  { on: "SmolLM2 on WASM", file: "/smollm2.gguf", backend: "wasm" },
  { on: "a tiny model on WebGPU", file: "/tiny.gguf", backend: "webgpu" },
] as const)("$on in Chromium", ({ file, backend }) => {
  let page: Page;

  beforeAll(async () => {
    ({ page } = await openPageAt(browser, site.url));
    await page.waitForFunction(() => "quire" in globalThis);
    await page.evaluate(definePageFunctions, { file, backend });
  });
  afterAll(async () => {
    await page?.context().close();
  });

  it("four samples cost one prefill and share the prompt's blocks", async () => {
    const maxTokens = 20;
    const { together, alone } = await page.evaluate(
      async ({ content, max_tokens }) => {
        const fields = { max_tokens, temperature: 1, seed: 41 };
        const together = await ask(engine, content, { ...fields, n: 4 });
        const alone = [];
        for (const i of [0, 1, 2, 3]) {
          await engine.resetPrefixCache();
          alone.push(await ask(engine, content, { ...fields, seed: 41 + i }));
        }
        return { together, alone };
      },
      { content: "Name a fruit and say why you like it.", max_tokens: maxTokens },
    );
    const { prompt_tokens, completion_tokens } = together.usage;
    expect(completion_tokens).toBe(4 * maxTokens);
    expect(together.rows).toBe(prompt_tokens + 4 * (maxTokens - 1));
    const shared = Math.floor(prompt_tokens / BLOCK_SIZE);
    const tail = Math.ceil(((prompt_tokens % BLOCK_SIZE) + maxTokens) / BLOCK_SIZE);
    expect(together.blocksPeak).toBeLessThanOrEqual(shared + 4 * tail);
    expect(together.ids).toEqual(alone.map(({ ids }) => ids[0]));
    expect(new Set(together.ids.map(String)).size).toBe(4);
    console.info(
      `n = 4: ${prompt_tokens} + 4 x ${maxTokens} tokens, ${together.rows} rows, ${together.blocksPeak} blocks at most`,
    );
  });

  it("four beams equal those of a plain search over log-probabilities", async () => {
    const { prompt, found } = await page.evaluate(
      async ({ max_tokens, end }) => {
        const text = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n";
        const prompt = await engine.tokenize(text, { specialTokens: true });
        const search = async (length_penalty: number, early_stopping: boolean | "never") => {
          const { choices } = await engine.completions.create({
            prompt,
            max_tokens,
            n: 4,
            use_beam_search: true,
            length_penalty,
            early_stopping,
            ignore_eos: true,
            stop_token_ids: [end],
            return_token_ids: true,
          });
          return choices.map((choice) => ({
            tokens: choice.token_ids!,
            cumulativeLogprob: choice.cumulative_logprob!,
            finishReason: choice.finish_reason,
          }));
        };
        const found = [await search(1, false), await search(0, true), await search(2, "never")];
        return { prompt, found };
      },
      { max_tokens: BEAM_TOKENS, end: END_TOKEN },
    );
    const next = rememberAnswers((tokens) => page.evaluate(likeliestAfter, [...tokens]));
    for (const [i, [lengthPenalty, earlyStopping]] of (
      [
        [1, false],
        [0, true],
        [2, "never"],
      ] as const
    ).entries()) {
      const expected = await plainBeamSearch(prompt, next, {
        width: 4,
        lengthPenalty,
        earlyStopping,
        maxTokens: BEAM_TOKENS,
        stopTokens: new Set([END_TOKEN]),
      });
      expect(found[i]).toEqual(expected.map(({ stopToken: _, ...hypothesis }) => hypothesis));
    }
  });

  it("chats that are swapped out or computed again get the same answers", async () => {
    const [roomy, recomputed, swapped] = await page.evaluate(async () => {
      const run = async (engine: Quire.QuireEngine) => {
        const chats = Array.from({ length: 6 }, (_, i) =>
          ask(engine, `Tell me a story about number ${i}${" and its friends".repeat(i % 3)}.`, {
            max_tokens: 36,
            temperature: i % 2,
            seed: i,
          }),
        );
        const ids = (await Promise.all(chats)).map((chat) => chat.ids[0]!);
        const { totals, kv, sequences } = await engine.stats();
        const events = (await engine.events()).filter(({ kind }) => kind !== "evict");
        return { ids, totals, kv, sequences, kinds: events.map((event) => event.kind) };
      };
      const runs = [await run(engine)];
      for (const given of [{ kvCacheBlocks: 16, swapBytes: 0 }, { kvCacheBlocks: 16 }]) {
        const small = await openEngine(given);
        runs.push(await run(small));
        await small.dispose();
      }
      return runs;
    });
    for (const { totals, kinds } of [roomy!, recomputed!, swapped!]) {
      console.info(`${totals.preemptions} preemptions, ${totals.swaps} swaps; ${kinds.join(" ")}`);
    }
    expect(roomy!.totals.preemptions).toBe(0);
    expect(recomputed!.totals.preemptions).toBeGreaterThan(0);
    expect(recomputed!.totals.swaps).toBe(0);
    expect(swapped!.totals.swaps).toBeGreaterThan(0);
    expect(swapped!.kinds).toContain("swap-in");
    for (const { ids, sequences, kv } of [recomputed!, swapped!]) {
      expect(ids).toEqual(roomy!.ids);
      expect(sequences).toEqual({ running: 0, waiting: 0, swapped: 0 });
      expect(kv.blocksUsed).toBe(0);
    }
  });

  it("tokens guessed from a text that is copied are the same, in fewer steps", async () => {
    const runs = await page.evaluate(async (lines) => {
      const runs = [];
      for (const temperature of [0, 0.5]) {
        for (const num_speculative_tokens of [0, 8]) {
          await engine.resetPrefixCache();
          const fields = { max_tokens: 48, temperature, seed: 3, num_speculative_tokens };
          const content = `Repeat the following text exactly:\n\n${lines}`;
          runs.push(await ask(engine, content, fields));
        }
      }
      return runs;
    }, LINES);
    for (const [plain, guessed] of [runs.slice(0, 2), runs.slice(2)]) {
      const { metrics, steps } = guessed!;
      const accepted = metrics.spec_decode_num_accepted_tokens;
      console.info(
        `${plain!.steps} steps without guesses, ${steps} with; ${accepted} of ${metrics.spec_decode_num_draft_tokens} accepted so far`,
      );
      expect(guessed!.ids).toEqual(plain!.ids);
      expect(accepted).toBeGreaterThan(0);
    }
    expect(runs[1]!.steps).toBeLessThan(runs[0]!.steps);
    expect(runs[3]!.steps).toBeLessThanOrEqual(runs[2]!.steps);
  });

  it("32 chats over a pool for 6 all finish, each as it does with room", async () => {
    const [roomy, crowded] = await page.evaluate(async () => {
      const content = (i: number) => `Question ${i}: what comes after ${i * 3}?`;
      const fields = (i: number) => ({ max_tokens: 12, temperature: i % 2, seed: i });
      const run = async (engine: Quire.QuireEngine) => {
        const chats = Array.from({ length: 32 }, (_, i) => ask(engine, content(i), fields(i)));
        const ids = (await Promise.all(chats)).map((chat) => chat.ids[0]!);
        const { sequences, kv, totals, metrics } = await engine.stats();
        return { ids, sequences, kv, totals, metrics };
      };
      const { usage } = await ask(engine, content(31), fields(31));
      const blocks = Math.ceil((usage.prompt_tokens + 12) / 16);
      const small = await openEngine({ kvCacheBlocks: 6 * blocks });
      const runs = [await run(engine), await run(small)];
      await small.dispose();
      return runs;
    });
    const { ids, sequences, kv, totals, metrics } = crowded!;
    console.info(
      `${kv.blocksTotal} blocks, ${roomy!.kv.blocksPeak} with room; ${totals.preemptions} preemptions`,
    );
    expect(ids).toEqual(roomy!.ids);
    expect(sequences).toEqual({ running: 0, waiting: 0, swapped: 0 });
    expect(kv.blocksUsed).toBe(0);
    expect(roomy!.kv.blocksPeak).toBeGreaterThan(kv.blocksTotal);
    expect(metrics.request_success.length + metrics.request_success.stop).toBe(32);
  });
});

/** In the page: how tests open engines over the setup's model, and ask them. */
async function definePageFunctions(setup: {
  readonly file: string;
  readonly backend: "wasm" | "webgpu";
}): Promise<void> {
  const model = await (await fetch(setup.file)).blob();
  const { backend } = setup;
  const openEngine = (given: Given = {}) =>
    quire.createEngine({ model, backend, maxSequences: 32, ...given });
  const ask = async (
    engine: Quire.QuireEngine,
    content: string,
    given: Fields,
  ): Promise<Outcome> => {
    const before = await engine.stats();
    const { choices, usage } = await engine.chat.completions.create({
      messages: [{ role: "user", content }],
      ignore_eos: true,
      return_token_ids: true,
      ...given,
    });
    const { totals, metrics, kv } = await engine.stats();
    return {
      ids: choices.map(({ token_ids }) => token_ids!),
      usage,
      steps: totals.steps - before.totals.steps,
      rows: metrics.iteration_tokens_total.sum - before.metrics.iteration_tokens_total.sum,
      blocksPeak: kv.blocksPeak,
      metrics,
    };
  };
  Object.assign(globalThis, { openEngine, ask, engine: await openEngine() });
}

/**
 * In the page: the likeliest tokens after these, best first. A prompt whose log-probabilities are asked for
 * is computed whole; the token behind it stands in for whatever comes.
 */
async function likeliestAfter(tokens: number[]): Promise<{ token: number; logprob: number }[]> {
  const { choices } = await engine.completions.create({
    prompt: [...tokens, 5],
    max_tokens: 0,
    prompt_logprobs: 20,
  });
  return Object.entries(choices[0]!.prompt_logprobs!.at(-1)!)
    .filter(([, { rank }]) => rank <= 20)
    .sort(([, a], [, b]) => a.rank - b.rank)
    .map(([id, { logprob }]) => ({ token: Number(id), logprob }));
}

function rememberAnswers(next: NextTokens): NextTokens {
  const known = new Map<string, ReturnType<NextTokens>>();
  return (tokens) => {
    const key = tokens.join();
    const found = known.get(key) ?? next(tokens);
    known.set(key, found);
    return found;
  };
}
