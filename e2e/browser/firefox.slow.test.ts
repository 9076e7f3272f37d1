import { afterAll, beforeAll, expect, it } from "vitest";
import { ensureBrowser, ensureLavapipe, launchBrowser } from "../../scripts/lib/browsers.mjs";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { LIBRARY_PAGE, openPageAt, openSite, type Site } from "./site.ts";

// The built library in Firefox: another engine, other WebGPU and WebAssembly, other worker and message
// port code.

declare const quire: typeof Quire;

let site: Site;
let firefox: Awaited<ReturnType<typeof launchBrowser>>;

beforeAll(async () => {
  await ensureLibrary();
  site = await openSite(
    {
      "index.html": LIBRARY_PAGE,
      // A context that WASM does not fill while the test looks at it.
      "tiny.gguf": makeTinyModel({ layers: 1, contextLength: 8192 }),
    },
    { files: { "/index.js": inRoot("dist/index.js"), "/worker.js": inRoot("dist/worker.js") } },
  );
  firefox = await launchBrowser("firefox", await ensureBrowser("firefox"), await ensureLavapipe());
});

afterAll(async () => {
  await firefox?.close();
  await site?.close();
});

it.each([
  ["webgpu", { backend: "webgpu", adapter: { isFallback: true } }],
  ["wasm", { backend: "wasm", adapter: null, simd: "relaxed", threads: 2 }],
] as const)(
  "%s streams, learns that a worker is gone, and disposes in Firefox",
  async (backend, facts) => {
    const { page } = await openPageAt(firefox.browser, site.url);
    await page.waitForFunction(() => "quire" in globalThis);
    const result = await page.evaluate(async (name) => {
      const options = {
        model: "/tiny.gguf",
        backend: name,
        ...(name === "wasm" ? { threads: 2 } : {}),
      };
      const own = await quire.createEngine(options);
      const ask = async (i: number): Promise<string> => {
        const stream = await own.chat.completions.create({
          messages: [{ role: "user", content: `Question ${i}` }],
          max_tokens: 6,
          seed: i,
          ignore_eos: true,
          stream: true,
        });
        let text = "";
        for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
        return text;
      };
      const together = await Promise.all([0, 1, 2, 3].map(ask));
      const alone = await ask(3);
      const { adapter, backend, threads, simd } = own;
      await own.dispose();
      const after = await own.stats().then(
        () => "alive",
        (error: Quire.QuireError) => error.code,
      );

      const worker = new Worker("/worker.js", { type: "module" });
      const second = await quire.createEngine({ model: "/tiny.gguf", backend: name, worker });
      const pending = second.chat.completions
        .create({ messages: [{ role: "user", content: "Hi" }], ignore_eos: true })
        .then(
          () => "completed",
          (error: Quire.QuireError) => error.code,
        );
      while ((await second.stats()).sequences.running === 0);
      worker.terminate();
      const made = { adapter, backend, threads, simd };
      return { together, alone, made, after, gone: await pending };
    }, backend);
    expect(result.alone).toBe(result.together[3]);
    expect(result.made).toMatchObject(facts);
    expect(result).toMatchObject({ after: "disposed", gone: "worker-failed" });
  },
);

/**
 * Firefox by itself reports finished work every 100 ms only. A step of the tiny model takes a few
 * milliseconds, so the time between tokens is mostly the time until completion is noticed.
 */
const MAX_STEP_MS = 10;

it("notices within milliseconds that a step is done", async () => {
  const { page } = await openPageAt(firefox.browser, site.url);
  await page.waitForFunction(() => "quire" in globalThis);
  const gaps = await page.evaluate(async () => {
    const engine = await quire.createEngine({ model: "/tiny.gguf", backend: "webgpu" });
    const times: number[] = [];
    const stream = await engine.completions.create({
      prompt: [1, 2, 3],
      max_tokens: 60,
      ignore_eos: true,
      stream: true,
      return_token_ids: true,
    });
    for await (const { choices } of stream) {
      if (choices[0]?.token_ids?.length) times.push(performance.now());
    }
    await engine.dispose();
    return times.slice(1).map((time, i) => time - times[i]!);
  });
  gaps.sort((a, b) => a - b);
  const median = gaps[Math.floor(gaps.length / 2)]!;
  console.info(`median time between tokens: ${median.toFixed(1)} ms`);
  expect(gaps.length).toBeGreaterThanOrEqual(50);
  expect(median).toBeLessThanOrEqual(MAX_STEP_MS);
});
