import type { Browser, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { LIBRARY_PAGE, openChromium, openPageAt, openSite, type Site } from "./site.ts";

// The choice of the WASM back end, its threads and what can go wrong with them, in a real browser.

declare const quire: typeof Quire;

type Options = Omit<Quire.EngineOptions, "model" | "worker">;

const FILES = {
  "/index.js": inRoot("dist/index.js"),
  "/worker.js": inRoot("dist/worker.js"),
};
const CONTENT = {
  "index.html": LIBRARY_PAGE,
  "tiny.gguf": makeTinyModel({ type: "Q4_1", layers: 2, contextLength: 8192 }),
};

let browser: Browser;
let closeBrowser: () => Promise<void>;
const sites: Site[] = [];

beforeAll(async () => {
  await ensureLibrary();
  ({ browser, close: closeBrowser } = await openChromium());
});

afterAll(async () => {
  await closeBrowser?.();
  for (const site of sites) await site.close();
});

async function openLibrary(options: { isolated?: boolean; policy?: string } = {}): Promise<Page> {
  const { isolated = true, policy } = options;
  const headers: Record<string, string> =
    policy === undefined ? {} : { "content-security-policy": policy };
  const site = await openSite(CONTENT, { files: FILES, isolated, headers });
  sites.push(site);
  const { page } = await openPageAt(browser, site.url);
  await page.waitForFunction(() => "quire" in globalThis);
  return page;
}

/** Ten greedy tokens, and what the engine says of itself. */
function complete(page: Page, options: Options & { readonly workerUrl?: string }) {
  return page.evaluate(async ({ workerUrl, ...given }) => {
    const worker = workerUrl === undefined ? {} : { worker: workerUrl };
    try {
      const engine = await quire.createEngine({ model: "/tiny.gguf", ...worker, ...given });
      const { choices } = await engine.chat.completions.create({
        messages: [{ role: "user", content: "What is this?" }],
        max_tokens: 10,
        temperature: 0,
        ignore_eos: true,
        return_token_ids: true,
      });
      const { backend, backendReason, precision, threads, simd, adapter } = await engine.stats();
      await engine.dispose();
      const facts = { backend, backendReason, precision, threads, simd, adapter };
      return { ...facts, tokens: choices[0]!.token_ids, code: "none", message: "" };
    } catch (error) {
      const { code, message } = error as Quire.QuireError;
      return { tokens: undefined, code: code as string, message };
    }
  }, options);
}

describe("the choice", () => {
  it("is WASM where the only adapter is software, with all threads, and says why", async () => {
    const page = await openLibrary();
    const cores = await page.evaluate(() => navigator.hardwareConcurrency);
    const support = await page.evaluate(() => quire.checkSupport());
    expect(support).toMatchObject({
      ok: true,
      backend: "wasm",
      adapter: { isFallback: true },
      wasm: { ok: true, simd: "relaxed", threads: true },
    });
    expect(support.reasons.map(({ code }) => code)).toEqual(["webgpu-unavailable"]);
    expect(support.limits["maxStorageBufferBindingSize"]).toBeGreaterThanOrEqual(2 ** 27);
    expect(support.features.length).toBeGreaterThan(0);
    expect(await complete(page, {})).toMatchObject({
      backend: "wasm",
      precision: "fast",
      threads: Math.min(cores, 8),
      simd: "relaxed",
      adapter: null,
      backendReason: "WebGPU offers only a software adapter (google swiftshader).",
    });
  });

  it("gives the same tokens with any number of threads, plain SIMD and without isolation", async () => {
    const page = await openLibrary();
    const plainPage = await openLibrary({ isolated: false });
    for (const precision of ["fast", "exact"] as const) {
      const asked = { backend: "wasm", precision } as const;
      const one = await complete(page, { ...asked, threads: 1 });
      expect(one).toMatchObject({ precision, threads: 1, simd: "relaxed" });
      expect(one.tokens).toHaveLength(10);
      const three = await complete(page, { ...asked, threads: 3, simd: "plain" });
      expect(three).toMatchObject({ precision, threads: 3, simd: "plain", tokens: one.tokens });
      const alone = await complete(plainPage, { ...asked, threads: 3 });
      expect(alone).toMatchObject({ threads: 1, tokens: one.tokens });
      expect(alone).toMatchObject({
        backendReason: expect.stringContaining("not cross-origin isolated"),
      });
    }
  });

  it("gives 60 conversations at once on more threads than cores what one thread gives them", async () => {
    const page = await openLibrary();
    const run = (threads: number) =>
      page.evaluate(async (count) => {
        const asked = { model: "/tiny.gguf", backend: "wasm", threads: count } as const;
        const engine = await quire.createEngine(asked);
        const ask = async (i: number) => {
          const { choices } = await engine.completions.create({
            prompt: `Conversation ${i} ${"is long ".repeat(i % 20)}`,
            max_tokens: 10 + (i % 7),
            temperature: i % 3,
            seed: i,
            ignore_eos: true,
            return_token_ids: true,
          });
          return choices[0]!.token_ids;
        };
        const tokens = await Promise.all(Array.from({ length: 60 }, (_, i) => ask(i)));
        await engine.dispose();
        return tokens;
      }, threads);
    const one = await run(1);
    expect(new Set(one.map(String)).size).toBeGreaterThan(50);
    for (const threads of [2, 3, 4, 3, 2]) expect(await run(threads), `${threads}`).toEqual(one);
  });

  it("needs 'wasm-unsafe-eval' under a policy, and names it", async () => {
    // The test page's own script is inline.
    const policy = (extra: string): string =>
      `default-src 'none'; script-src 'self' 'unsafe-inline'${extra}; worker-src 'self'; connect-src 'self'; img-src data:`;
    const asked = { threads: 2, workerUrl: "worker.js" };
    const allowed = await openLibrary({ policy: policy(" 'wasm-unsafe-eval'") });
    expect(await complete(allowed, asked)).toMatchObject({ backend: "wasm", threads: 2 });
    const forbidden = await openLibrary({ policy: policy("") });
    const named = await complete(forbidden, { ...asked, backend: "wasm" });
    expect(named).toMatchObject({ code: "wasm-unavailable" });
    expect(named.message).toContain("'wasm-unsafe-eval'");
    const both = await complete(forbidden, asked);
    expect(both).toMatchObject({ code: "wasm-unavailable" });
    expect(both.message).toMatch(/'wasm-unsafe-eval'.*software adapter \(google swiftshader\)/);
    const { workerUrl } = asked;
    const gpu = await complete(forbidden, { workerUrl, backend: "webgpu" });
    expect(gpu).toMatchObject({ backend: "webgpu", backendReason: "It was asked for by name." });
  });
});

describe("threads", () => {
  /** What comes of an engine of three threads, one of whose workers is made by `last`, and of the next one. */
  function withLastWorker(page: Page, last: "dies" | "is missing" | "throws") {
    return page.evaluate(async (fate) => {
      const made: Worker[] = [];
      const worker = (): Worker => {
        const isLast = made.length === 2;
        const url = isLast && fate === "is missing" ? "/nowhere.js" : "/worker.js";
        const next = new Worker(url, { type: "module" });
        made.push(next);
        if (isLast && fate === "throws") throw new Error("no more workers");
        return next;
      };
      const options = { model: "/tiny.gguf", backend: "wasm", threads: 3 } as const;
      const outcome = async (): Promise<string> => {
        const engine = await quire.createEngine({ ...options, worker });
        const pending = engine.chat.completions.create({
          messages: [{ role: "user", content: "Hi" }],
          ignore_eos: true,
        });
        while ((await engine.stats()).sequences.running === 0);
        made[2]!.terminate();
        return pending.then(() => "completed");
      };
      const start = performance.now();
      const failed = await outcome().catch((error: Quire.QuireError) => error);
      const ms = performance.now() - start;
      const { code, message } = failed as Quire.QuireError;
      const next = await quire.createEngine(options);
      const params = { prompt: "The user", max_tokens: 3, ignore_eos: true };
      const { usage } = await next.completions.create(params);
      const { threads } = next;
      await next.dispose();
      return { code, message, ms, next: { threads, tokens: usage.completion_tokens } };
    }, last);
  }

  it.each([
    ["dies", /thread of the engine is gone|thread of the WASM back end/],
    ["is missing", /thread of the engine did not start.*not found/],
    ["throws", /thread of the engine could not be made/],
  ] as const)("one that %s is `worker-failed`, and the next engine works", async (fate, words) => {
    const page = await openLibrary();
    const found = await withLastWorker(page, fate);
    expect(found).toMatchObject({ code: "worker-failed", next: { threads: 3, tokens: 3 } });
    expect(found.message).toMatch(words);
    expect(found.ms).toBeLessThan(15_000);
  });

  it("a Worker instead of a function leaves one", async () => {
    const page = await openLibrary();
    const found = await page.evaluate(async () => {
      const worker = new Worker("/worker.js", { type: "module" });
      const engine = await quire.createEngine({ model: "/tiny.gguf", backend: "wasm", worker });
      const { threads, backendReason } = engine;
      await engine.dispose();
      return { threads, backendReason, cores: navigator.hardwareConcurrency };
    });
    expect(found.threads).toBe(1);
    if (found.cores > 1) expect(found.backendReason).toContain("`worker` option is a Worker");
  });
});
