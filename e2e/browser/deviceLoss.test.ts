import { expect, it } from "vitest";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { LIBRARY_PAGE, openChromium, openPageAt, openSite } from "./site.ts";

declare const quire: typeof Quire;
declare const engine: Quire.QuireEngine;

/** Tokens an answer: the GPU process ends when the first of them are there. */
const NUM_TOKENS = 60;

it("goes on with the same tokens after Chromium's GPU process crashed", async () => {
  await ensureLibrary();
  const site = await openSite(
    { "index.html": LIBRARY_PAGE, "tiny.gguf": makeTinyModel({ layers: 1, contextLength: 8192 }) },
    { files: { "/index.js": inRoot("dist/index.js"), "/worker.js": inRoot("dist/worker.js") } },
  );
  const { browser, close } = await openChromium();
  try {
    const { page } = await openPageAt(browser, site.url);
    await page.evaluate(async () => {
      const model = await (await fetch("/tiny.gguf")).blob();
      const made = await quire.createEngine({ model, backend: "webgpu" });
      Object.assign(globalThis, { engine: made, numTokens: 0 });
    });
    // One greedy and two sampled answers, as lists of token ids.
    const generate = (): Promise<number[][]> =>
      page.evaluate((maxTokens) => {
        const ask = async (i: number): Promise<number[]> => {
          const stream = await engine.completions.create({
            prompt: `Question ${i}`,
            max_tokens: maxTokens,
            temperature: i,
            seed: i,
            ignore_eos: true,
            return_token_ids: true,
            stream: true,
          });
          const tokens: number[] = [];
          for await (const { choices } of stream) {
            tokens.push(...(choices[0]?.token_ids ?? []));
            Object.assign(globalThis, { numTokens: tokens.length });
          }
          return tokens;
        };
        return Promise.all([0, 1, 2].map(ask));
      }, NUM_TOKENS);
    const undisturbed = await generate();
    expect(undisturbed.map(({ length }) => length)).toEqual([NUM_TOKENS, NUM_TOKENS, NUM_TOKENS]);

    await page.evaluate(() => Object.assign(globalThis, { numTokens: 0 }));
    const disturbed = generate();
    await page.waitForFunction(
      () => (globalThis as unknown as { numTokens: number }).numTokens > 5,
    );
    const control = await browser.newBrowserCDPSession();
    await control.send("Browser.crashGpuProcess");
    expect(await disturbed).toEqual(undisturbed);

    const stats = await page.evaluate(() => engine.stats());
    expect(stats.totals.deviceLosses).toBe(1);
    expect(stats.kv.blocksUsed).toBe(0);
  } finally {
    await close();
    await site.close();
  }
});
