import { afterAll, beforeAll, expect, it } from "vitest";
import { ensureBrowser, ensureLavapipe, launchBrowser } from "../../scripts/lib/browsers.mjs";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { ensureDefaultModel } from "../../scripts/lib/model.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import type * as Quire from "../../src/index.ts";
import { LIBRARY_PAGE, openPageAt, openSite, type Site } from "./site.ts";

// The default model in a real browser. Firefox, because lavapipe is several times faster than SwiftShader.

declare const quire: typeof Quire;

let site: Site;
let firefox: Awaited<ReturnType<typeof launchBrowser>>;

beforeAll(async () => {
  await ensureLibrary();
  const model = await ensureDefaultModel();
  site = await openSite(
    {
      "index.html": LIBRARY_PAGE,
    },
    { files: { "/index.js": inRoot("dist/index.js"), "/model.gguf": model.path } },
  );
  firefox = await launchBrowser("firefox", await ensureBrowser("firefox"), await ensureLavapipe());
});

afterAll(async () => {
  await firefox?.close();
  await site?.close();
});

it("answers a second turn in at most 0.3 of the first turn's time to the first token", async () => {
  const { page } = await openPageAt(firefox.browser, site.url);
  await page.waitForFunction(() => "quire" in globalThis);
  const result = await page.evaluate(async () => {
    const engine = await quire.createEngine({ model: "/model.gguf", backend: "webgpu" });
    type Message = { role: "user" | "assistant"; content: string };
    const ask = async (messages: readonly Message[]) => {
      const start = performance.now();
      let firstMs = 0;
      let text = "";
      const stream = await engine.chat.completions.create({
        messages,
        max_tokens: 12,
        temperature: 0,
        stream: true,
        stream_options: { include_usage: true },
      });
      let usage: Quire.ChatCompletionChunk["usage"];
      for await (const chunk of stream) {
        if (firstMs === 0 && chunk.choices[0]?.delta.content) firstMs = performance.now() - start;
        text += chunk.choices[0]?.delta.content ?? "";
        usage = chunk.usage ?? usage;
      }
      return { firstMs, text, usage: usage! };
    };
    // Compiles what is compiled at first use, so that the first turn does not pay for it.
    await ask([{ role: "user", content: "One, two, three, four, five, six, seven, eight." }]);
    const facts = Array.from({ length: 40 }, (_, i) => `Box ${i} holds ${i * 7 + 3} red pens.`);
    const first: Message = {
      role: "user",
      content: `Read this. ${facts.join(" ")} How many boxes?`,
    };
    const one = await ask([first]);
    const two = await ask([
      first,
      { role: "assistant", content: one.text },
      { role: "user", content: "And how many pens in box 3?" },
    ]);
    await engine.dispose();
    return { one, two };
  });
  const { one, two } = result;
  const ratio = two.firstMs / one.firstMs;
  console.info(
    `first turn ${one.usage.prompt_tokens} tokens, ${one.firstMs.toFixed(0)} ms to the first token; ` +
      `second ${two.usage.prompt_tokens} tokens, ${two.usage.prompt_tokens_details.cached_tokens} cached, ` +
      `${two.firstMs.toFixed(0)} ms: ratio ${ratio.toFixed(3)}`,
  );
  expect(one.usage.prompt_tokens).toBeGreaterThanOrEqual(400);
  expect(two.usage.prompt_tokens_details.cached_tokens).toBeGreaterThanOrEqual(400);
  expect(ratio).toBeLessThanOrEqual(0.3);
});
