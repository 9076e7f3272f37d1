import type { Browser, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { ensureDefaultModel, standInReason } from "../../scripts/lib/model.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { GREEDY_CHATS } from "../fixtures/greedyChats.ts";
import greedy from "../fixtures/smollm2-greedy.json" with { type: "json" };
import { descendantCpuSeconds } from "./processTree.ts";
import { LIBRARY_PAGE, openChromium, openPageAt, openSite, type Site } from "./site.ts";

// The default model in Chromium on WASM: what a user without a GPU gets.

declare const quire: typeof Quire;
declare const engine: Quire.QuireEngine;

/** A task of the page's main thread that takes longer makes it stutter; what the browser calls a long task. */
const LONG_TASK_MS = 50;
const IDLE_SECONDS = 10;
/** Of one core, over what a blank page costs. */
const MAX_IDLE_CPU = 0.02;

const model = await ensureDefaultModel();
/** Some tests expect what the default model's own file answers; a stand-in's answers show nothing. */
const standIn = standInReason(model);

let site: Site;
let browser: Browser;
let closeBrowser: () => Promise<void>;

beforeAll(async () => {
  await ensureLibrary();
  site = await openSite(
    { "index.html": LIBRARY_PAGE, "blank.html": "<!doctype html><title>blank</title>" },
    { files: { "/index.js": inRoot("dist/index.js"), "/model.gguf": model.path } },
  );
  ({ browser, close: closeBrowser } = await openChromium());
});

afterAll(async () => {
  await closeBrowser?.();
  await site?.close();
});

async function openEngine(options: Omit<Quire.EngineOptions, "model" | "worker">): Promise<Page> {
  const { page } = await openPageAt(browser, site.url);
  await page.waitForFunction(() => "quire" in globalThis);
  await page.evaluate(async (given) => {
    const model = await (await fetch("/model.gguf")).blob();
    const asked = { model, backend: "wasm", ...given } as const;
    Object.assign(globalThis, { engine: await quire.createEngine(asked) });
  }, options);
  return page;
}

describe("SmolLM2 on WASM in Chromium", () => {
  it("exact, f32 KV: ten chats at once get llama.cpp's greedy tokens", async ({ skip }) => {
    skip(standIn !== undefined, standIn);
    const page = await openEngine({ precision: "exact", kvCacheDtype: "f32" });
    const answers = await page.evaluate(
      (chats) =>
        Promise.all(
          chats.map(async ({ messages }) => {
            const { choices } = await engine.chat.completions.create({
              messages,
              max_tokens: 32,
              temperature: 0,
              return_token_ids: true,
            });
            return choices[0]!.token_ids;
          }),
        ),
      GREEDY_CHATS,
    );
    await page.close();
    for (const [i, { name }] of GREEDY_CHATS.entries()) {
      expect(answers[i], name).toEqual(greedy.chats.find((chat) => chat.name === name)!.tokens);
    }
  });

  it("four questions about one text of 3,000 tokens compute it once", async () => {
    const page = await openEngine({});
    const { text, usages, steps, rows } = await page.evaluate(async () => {
      const facts = Array.from({ length: 250 }, (_, i) => `Box ${i} holds ${i * 7 + 3} red pens.`);
      const document = facts.join(" ");
      const before = (await engine.stats()).totals;
      const usages = await Promise.all(
        [3, 50, 100, 200].map(async (box) => {
          const { usage } = await engine.chat.completions.create({
            messages: [
              { role: "user", content: `${document}\n\nHow many pens does box ${box} hold?` },
            ],
            max_tokens: 4,
            ignore_eos: true,
          });
          return usage;
        }),
      );
      const { totals } = await engine.stats();
      const computed = (of: typeof totals): number => of.promptTokens - of.cachedTokens;
      return {
        text: (await engine.tokenize(document)).length,
        usages,
        steps: totals.steps - before.steps,
        rows: computed(totals) - computed(before),
      };
    });
    await page.close();
    const cached = usages.map((usage) => usage.prompt_tokens_details.cached_tokens);
    console.info(`text ${text} tokens; cached ${cached}; ${rows} prompt rows in ${steps} steps`);
    expect(text).toBeGreaterThanOrEqual(3000);
    expect(cached.filter((tokens) => tokens > text - 32)).toHaveLength(3);
    // One text, and each chat's own end.
    expect(rows).toBeLessThan(text + 4 * 64);
  });

  it("a second turn finds the first one's prompt and answer in the pool, however it ended", async ({
    skip,
  }) => {
    skip(standIn !== undefined, standIn);
    const page = await openEngine({});
    const turns = await page.evaluate(async () => {
      const ask = async (question: string, fields: object, stopAfter?: number) => {
        const messages: Quire.ChatMessage[] = [{ role: "user", content: question }];
        const params = { messages, temperature: 1, seed: 11, ...fields };
        const stream = await engine.chat.completions.create({
          ...params,
          stream: true,
          return_token_ids: true,
        });
        let text = "";
        const ids: number[] = [];
        let reason: string | null = null;
        for await (const { choices } of stream) {
          text += choices[0]!.delta.content ?? "";
          ids.push(...choices[0]!.token_ids!);
          reason = choices[0]!.finish_reason;
          // Not within a character, of which the text has nothing yet.
          if (ids.length >= (stopAfter ?? Infinity) && choices[0]!.delta.content) break;
        }
        messages.push({ role: "assistant", content: text });
        messages.push({ role: "user", content: "Are you sure?" });
        const { usage } = await engine.chat.completions.create({ ...params, max_tokens: 1 });
        const canonical = await engine.tokenize(text);
        const first = await engine.chat.completions.create({
          ...params,
          messages: messages.slice(0, 1),
          max_tokens: 1,
        });
        return {
          reason,
          isCanonical: String(canonical) === String(ids),
          firstTurn: first.usage.prompt_tokens + ids.length,
          cached: usage.prompt_tokens_details.cached_tokens,
        };
      };
      return [
        await ask("What is 2 + 2? One word.", { max_tokens: 200 }),
        await ask("Say hello.", { max_tokens: 200, temperature: 0 }),
        await ask("Tell me about rain in the mountains.", { max_tokens: 200 }, 40),
      ];
    });
    await page.close();
    console.info(turns);
    expect(turns.map(({ reason }) => reason)).toEqual(["length", "stop", null]);
    expect(turns[0]!.isCanonical).toBe(false);
    // The last token's keys and values are computed only where another token follows.
    for (const { cached, firstTurn } of turns) expect(cached).toBeGreaterThanOrEqual(firstTurn - 1);
  });

  it("eight chats never block the page for long, and cost nothing when they are over", async () => {
    const blank = await openPageAt(browser, `${site.url}/blank.html`);
    await blank.page.waitForTimeout(2000);
    const cpuOver = async (page: Page): Promise<number> => {
      const before = descendantCpuSeconds();
      await page.waitForTimeout(IDLE_SECONDS * 1000);
      return (descendantCpuSeconds() - before) / IDLE_SECONDS;
    };
    const blankCpu = await cpuOver(blank.page);
    await blank.page.close();

    const page = await openEngine({});
    const longTasks = await page.evaluate(async () => {
      const durations: number[] = [];
      const observer = new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) durations.push(duration);
      });
      observer.observe({ type: "longtask" });
      const chat = async (i: number): Promise<number> => {
        const stream = await engine.chat.completions.create({
          messages: [{ role: "user", content: `Tell me a story about the number ${i}.` }],
          max_tokens: 48,
          ignore_eos: true,
          stream: true,
        });
        let chunks = 0;
        for await (const _ of stream) chunks++;
        return chunks;
      };
      await Promise.all(Array.from({ length: 8 }, (_, i) => chat(i)));
      await new Promise((resolve) => setTimeout(resolve, 500));
      observer.disconnect();
      return durations;
    });
    const idleCpu = await cpuOver(page);
    await page.close();
    console.info(
      `long tasks: ${longTasks.length}; CPU when idle ${(idleCpu * 100).toFixed(2)} %, blank page ${(blankCpu * 100).toFixed(2)} % of a core`,
    );
    expect(longTasks.filter((ms) => ms > LONG_TASK_MS)).toEqual([]);
    expect(idleCpu - blankCpu).toBeLessThan(MAX_IDLE_CPU);
  });
});
