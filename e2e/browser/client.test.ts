import type { Browser, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { LIBRARY_PAGE, openChromium, openPageAt, openSite, type Site } from "./site.ts";

// The built library in a real browser: real worker, real ports, both back ends. What needs no browser
// is tested in e2e/client.test.ts.

/** Long enough that a request does not end by itself while a test looks at it. */
const CONTEXT = 8192;

declare const quire: typeof Quire;
declare const engine: Quire.QuireEngine;

let site: Site;
let browser: Browser;
let closeBrowser: () => Promise<void>;
let modelRequests = 0;

beforeAll(async () => {
  await ensureLibrary();
  site = await openSite(
    {
      "index.html": LIBRARY_PAGE,
      "tiny.gguf": makeTinyModel({ layers: 1, contextLength: CONTEXT }),
    },
    {
      files: { "/index.js": inRoot("dist/index.js"), "/worker.js": inRoot("dist/worker.js") },
      onRequest: ({ path }) => {
        if (path === "/tiny.gguf") modelRequests++;
      },
    },
  );
  ({ browser, close: closeBrowser } = await openChromium());
});

afterAll(async () => {
  await closeBrowser?.();
  await site?.close();
});

/** What an engine says of each. */
const BACKENDS = [
  ["webgpu", { backend: "webgpu", precision: "exact", threads: 1, simd: null }],
  ["wasm", { backend: "wasm", precision: "fast", threads: 2, simd: "relaxed", adapter: null }],
] as const;

describe.each(BACKENDS)("%s in Chromium", (backend, facts) => {
  let page: Page;

  beforeAll(async () => {
    ({ page } = await openPageAt(browser, site.url));
    await page.evaluate(async (name) => {
      const model = await (await fetch("/tiny.gguf")).blob();
      const threads = name === "wasm" ? { threads: 2 } : {};
      const made = await quire.createEngine({ model, backend: name, ...threads });
      Object.assign(globalThis, { engine: made });
    }, backend);
  });

  afterAll(async () => {
    await page?.context().close();
  });

  it("says what it runs on", async () => {
    const stats = await page.evaluate(() => engine.stats());
    expect(stats).toMatchObject({ ...facts, backendReason: "It was asked for by name." });
    expect(stats.adapter?.isFallback).toBe(backend === "webgpu" ? true : undefined);
    expect(stats.memory.kvPoolBytes).toBeGreaterThan(0);
  });

  it("streams 20 conversations at once, each as it gets alone", async () => {
    const { together, alone, steps } = await page.evaluate(async () => {
      const ask = async (i: number): Promise<number[]> => {
        const stream = await engine.chat.completions.create({
          messages: [{ role: "user", content: `Question ${i}` }],
          max_tokens: 4 + (i % 3),
          seed: i,
          ignore_eos: true,
          return_token_ids: true,
          stream: true,
        });
        const ids: number[] = [];
        for await (const chunk of stream) ids.push(...(chunk.choices[0]?.token_ids ?? []));
        return ids;
      };
      const numbers = Array.from({ length: 20 }, (_, i) => i);
      const before = (await engine.stats()).totals.steps;
      const together = await Promise.all(numbers.map(ask));
      const steps = (await engine.stats()).totals.steps - before;
      const alone = [];
      for (const i of [0, 7, 19]) alone.push(await ask(i));
      return { together, alone, steps };
    });
    expect(together.map((ids) => ids.length)).toEqual(together.map((_, i) => 4 + (i % 3)));
    expect(alone).toEqual([together[0], together[7], together[19]]);
    // 100 tokens: far fewer steps than one after the other would take.
    expect(steps).toBeLessThan(50);
  });

  it("searches with beams and draws the best of several, the same beside other requests", async () => {
    const { together, alone, late } = await page.evaluate(async () => {
      const messages = [{ role: "user" as const, content: "What is this?" }];
      const common = { messages, max_tokens: 8, ignore_eos: true, return_token_ids: true };
      const ids = async (fields: object) => {
        const { choices } = await engine.chat.completions.create({ ...common, ...fields });
        return choices.map(({ token_ids, cumulative_logprob }) => ({
          ids: token_ids!,
          sum: cumulative_logprob,
        }));
      };
      const asked = [
        { use_beam_search: true, beam_width: 4, n: 2 },
        { best_of: 4, n: 2, temperature: 1, seed: 1 },
        { n: 3, temperature: 1, seed: 9 },
        { temperature: 0, num_speculative_tokens: 4 },
      ];
      const together = await Promise.all(asked.map(ids));
      const alone = [];
      for (const fields of asked) alone.push(await ids(fields));
      const late = await ids({ max_tokens: 8000, temperature: 0, deadline_ms: 300 }).catch(
        ({ code, data }: Quire.QuireError) => ({ code, choices: data["choices"] as never[] }),
      );
      return { together, alone, late };
    });
    expect(together).toEqual(alone);
    const [beams, best] = together;
    for (const list of [beams!, best!]) {
      expect(list).toHaveLength(2);
      expect(list[0]!.sum).toBeGreaterThanOrEqual(list[1]!.sum!);
      for (const { ids } of list) expect(ids).toHaveLength(8);
    }
    expect(late).toMatchObject({ code: "deadline-exceeded", choices: [{ index: 0 }] });
  });

  it("ends the request of a stream that was dropped unread", async () => {
    const devtools = await page.context().newCDPSession(page);
    const busy = () =>
      page.evaluate(async () => {
        const { sequences, totals } = await engine.stats();
        return { running: sequences.running + sequences.waiting, tokens: totals.completionTokens };
      });
    const before = await busy();
    expect(before.running).toBe(0);
    await page.evaluate(async () => {
      const params = { messages: [{ role: "user" as const, content: "Hi" }], ignore_eos: true };
      await engine.chat.completions.create({ ...params, stream: true });
    });
    // The browser may collect the stream before it is asked to.
    let now = await busy();
    for (let i = 0; i < 100 && now.running > 0; i++) {
      await devtools.send("HeapProfiler.collectGarbage");
      now = await busy();
    }
    expect(now.running).toBe(0);
    // It ended long before its context was full.
    expect(now.tokens - before.tokens).toBeLessThan(CONTEXT - 100);
  });

  it("keeps a model opened by URL, so that a reload needs no network", async () => {
    const { page: first } = await openPageAt(browser, site.url);
    const load = async (name: "webgpu" | "wasm") => {
      const phases: string[] = [];
      const own = await quire.createEngine({
        model: "/tiny.gguf",
        backend: name,
        onProgress: ({ phase }) => {
          if (phases.at(-1) !== phase) phases.push(phase);
        },
      });
      const { model } = own;
      await own.dispose();
      return { phases, model, stored: await quire.listModels() };
    };
    const fresh = await first.evaluate(load, backend);
    expect(fresh.phases).toEqual(["download", "prepare", "weights"]);
    expect(fresh.stored).toMatchObject([{ url: `${site.url}/tiny.gguf`, complete: true }]);
    expect(fresh.model.file).toBe(`${site.url}/tiny.gguf`);
    await first.reload();
    const before = modelRequests;
    const again = await first.evaluate(load, backend);
    expect(again.model).toEqual(fresh.model);
    expect(modelRequests).toBe(before);
    const deleted = await first.evaluate(async () => [
      await quire.deleteModel("/tiny.gguf"),
      await quire.deleteModel("/tiny.gguf"),
      (await quire.listModels()).length,
    ]);
    expect(deleted).toEqual([true, false, 0]);
    await first.context().close();
  });

  it("crosses the code of a model that is not there", async () => {
    const code = await page.evaluate(
      (name) =>
        quire.createEngine({ model: "/nowhere.gguf", backend: name }).then(
          () => "none",
          (error: Quire.QuireError) => error.code,
        ),
      backend,
    );
    expect(code).toBe("source-read");
  });

  it("learns that the worker is gone, although no event tells it", async () => {
    const outcome = await page.evaluate(async (name) => {
      const worker = new Worker("/worker.js", { type: "module" });
      const own = await quire.createEngine({ model: "/tiny.gguf", backend: name, worker });
      const params = { messages: [{ role: "user" as const, content: "Hi" }], ignore_eos: true };
      const pending = own.chat.completions.create(params).then(
        () => "completed",
        (error: Quire.QuireError) => error.code,
      );
      while ((await own.stats()).sequences.running === 0);
      worker.terminate();
      const codes = [await pending];
      codes.push(
        await own.stats().then(
          () => "alive",
          (error: Quire.QuireError) => error.code,
        ),
      );
      await own.dispose();
      return codes;
    }, backend);
    expect(outcome).toEqual(["worker-failed", "worker-failed"]);
  });

  it("dispose frees the engine; another one works after it", async () => {
    const texts = await page.evaluate(async (name) => {
      const texts = [];
      const options = { model: "/tiny.gguf", backend: name, kvCacheDtype: "f32" } as const;
      for (let i = 0; i < 2; i++) {
        const own = await quire.createEngine(options);
        const params = { prompt: "The user", max_tokens: 6, temperature: 0, ignore_eos: true };
        texts.push((await own.completions.create(params)).choices[0]!.text);
        await own.dispose();
      }
      return texts;
    }, backend);
    expect(texts[0]).toBe(texts[1]);
    expect(texts[0]).not.toBe("");
  });
});
