import { Buffer } from "node:buffer";
import type { Browser, Locator, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEMO_FOLDER, ensureDemo } from "../../scripts/lib/build.mjs";
import { makeParrotModel } from "../fixtures/parrotModel.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import {
  answers,
  button,
  chat,
  contrast,
  LOAD_MS,
  layoutShift,
  type OpenDemo,
  openDemoAt,
  overflow,
  textOf,
  untilReady,
  untilState,
} from "./demoPage.ts";
import { openChromium, openSite, type Site } from "./site.ts";

// The built demo with small models that say what they are told to, under a path of its own: nothing
// in it may depend on being at a server's root.

/** Layout shift of the whole loading; 0.1 is what the web calls good. */
const MAX_LAYOUT_SHIFT = 0.01;

const TINY = {
  name: "tiny.gguf",
  mimeType: "application/octet-stream",
  buffer: Buffer.from(makeTinyModel({ layers: 1 })),
};
/** What an attacker would like an answer to do. */
const HOSTILE = [
  "<img src=x onerror=window.attacked=1><script>window.attacked=2</script> ",
  "[a](javascript:window.attacked=3) ![b](/pixel.png) <a href=javascript:window.attacked=4>c</a> ",
] as const;

let site: Site;
let browser: Browser;
let closeBrowser: () => Promise<void>;
/** Paths that pages asked for. */
const requests: string[] = [];

beforeAll(async () => {
  await ensureDemo();
  site = await openSite(
    {
      // Long enough to be stopped by hand.
      "models/parrot.gguf": await makeParrotModel(["one **two** ", "three `four`\n"], {
        contextLength: 8192,
        isSure: true,
      }),
      "models/hostile.gguf": await makeParrotModel(HOSTILE, { name: HOSTILE[0] }),
    },
    {
      folders: { "/demo/": DEMO_FOLDER },
      json: { "/demo/quire.json": { model: { url: "/models/parrot.gguf", name: "parrot.gguf" } } },
      onRequest: ({ path }) => requests.push(path),
    },
  );
  ({ browser, close: closeBrowser } = await openChromium());
}, LOAD_MS);

afterAll(async () => {
  await closeBrowser?.();
  await site?.close();
});

/** WASM would reach the end of an answer before a test can stop it. */
const openDemo = (query = "?backend=webgpu"): Promise<OpenDemo> => openDemoAt(browser, site, query);

const modelButton = (page: Page): Locator => button(page, /^Model:/);

/** Answers that go on until they are stopped. */
async function makeEndless(page: Page, ids: readonly number[]): Promise<void> {
  for (const id of ids) {
    await chat(page, id).getByLabel("Temperature").fill("0");
    await chat(page, id).getByLabel("Most tokens").fill("8000");
  }
}

describe("the demo", () => {
  let page: Page;
  let problems: string[];

  it("loads the server's model without a layout jump and says what it runs on", async () => {
    ({ page, problems } = await openDemo());
    await untilReady(page);
    expect(await textOf(page.locator(".machine"))).toMatch(
      /^Software adapter \(google swiftshader\): WebGPU runs on the CPU here: slow · exact .* KV f16/,
    );
    expect(await textOf(modelButton(page))).toContain("parrot");
    expect(await layoutShift(page)).toBeLessThan(MAX_LAYOUT_SHIFT);
    expect(await textOf(page.locator("output.visually-hidden"))).toBe("parrot.gguf is ready.");
    expect(problems).toEqual([]);
  });

  it("runs two chats at the same time; each stops alone, and all together", async () => {
    await makeEndless(page, [1, 2]);
    await page.getByLabel("Message to all chats").fill("Hello, both!");
    await page.getByLabel("Message to all chats").press("Enter");
    for (const id of [1, 2]) {
      await untilState(answers(page, id), "streaming");
      expect(await textOf(chat(page, id).locator(".question"))).toBe("You: Hello, both!");
    }
    await page.getByTestId("running").getByText("2", { exact: true }).waitFor();
    expect(await textOf(page.getByTestId("kv-blocks"))).toMatch(/^[1-9]\d*\/\d+$/);
    await page
      .getByTestId("total-rate")
      .getByText(/^[\d.]+$/)
      .waitFor();
    for (const id of [1, 2]) {
      expect(await textOf(page.getByTestId(`rate-${id}`))).toMatch(/^[\d.]+ tokens\/s$/);
    }

    await button(chat(page, 1), "Stop chat 1").click();
    await untilState(answers(page, 1), "stopped");
    await page.getByTestId("running").getByText("1", { exact: true }).waitFor();
    const before = await textOf(answers(page, 2));
    await page.waitForFunction(
      (length) => (document.querySelectorAll(".answer")[1]?.textContent?.length ?? 0) > length,
      before.length + 20,
    );
    expect(await answers(page, 2).getAttribute("data-state")).toBe("streaming");

    await button(page, "Stop all").click();
    await untilState(answers(page, 2), "stopped");
    await page.getByTestId("running").getByText("0", { exact: true }).waitFor();
    expect(await textOf(page.getByTestId("kv-blocks"))).toMatch(/^0\//);
    // What came is kept, as Markdown.
    for (const id of [1, 2]) {
      const bold = await answers(page, id).locator("strong").count();
      expect(bold + (await answers(page, id).locator("code").count())).toBeGreaterThan(0);
      expect(await textOf(answers(page, id))).toMatch(/Stopped · \d+ tokens/);
    }
    expect(problems).toEqual([]);
  });

  it("goes on after a stop: next turn, length limit, prefix cache, retry, clear", async () => {
    const first = chat(page, 1);
    await first.getByLabel("Most tokens").fill("5");
    await first.getByLabel("Message to chat 1").fill("Go on");
    await button(first, "Send").click();
    await untilState(answers(page, 1).last(), "length");
    const foot = await textOf(answers(page, 1).last());
    expect(foot).toMatch(/Cut off at the most tokens · 5 tokens/);
    // The turn before was in the pool: the conversation was sent whole.
    expect(foot).toMatch(/[1-9]\d* of \d+ prompt tokens from the cache/);

    await button(chat(page, 2), "Retry").click();
    await untilState(answers(page, 2), "streaming");
    expect(await answers(page, 2).count()).toBe(1);
    await button(chat(page, 2), "Clear Chat 2").click();
    expect(await answers(page, 2).count()).toBe(0);
    await page.getByTestId("running").getByText("0", { exact: true }).waitFor();
  });

  it("reloads in mid-generation from its store, without network", async () => {
    await page.getByLabel("Message to chat 1").fill("Long");
    await chat(page, 1).getByLabel("Most tokens").fill("8000");
    await page.getByLabel("Message to chat 1").press("Enter");
    await untilState(answers(page, 1).last(), "streaming");
    requests.length = 0;
    await page.reload();
    await untilReady(page);
    expect(requests).toContain("/demo/quire.json");
    expect(requests).not.toContain("/models/parrot.gguf");
    await chat(page, 1).getByLabel("Most tokens").fill("3");
    await page.getByLabel("Message to chat 1").fill("Hi");
    await page.getByLabel("Message to chat 1").press("Enter");
    await answers(page, 1)
      .getByText(/[123] tokens?/)
      .waitFor();
  });

  it("works with the keyboard alone", async () => {
    await button(chat(page, 1), "Clear Chat 1").click();
    await makeEndless(page, [1]);
    await page.locator("body").click({ position: { x: 2, y: 2 } });
    const focused = () =>
      page.evaluate(() => {
        const { id, textContent } = document.activeElement as HTMLElement;
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement!);
        return { id, text: textContent, outline: `${outlineWidth} ${outlineStyle}` };
      });
    const visible = "2px solid";
    await page.keyboard.press("Tab");
    expect(await focused()).toMatchObject({ outline: visible });
    expect((await focused()).text).toMatch(/^Model: /);
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Model" }).waitFor();
    // All of the dialog, and nothing behind it, is in the order of the Tab key.
    await button(page.getByRole("dialog"), "Delete parrot.gguf").waitFor();
    const inDialog: string[] = [];
    for (let i = 0; i < 6; i++) {
      inDialog.push(
        await page.evaluate(() => {
          const { id, textContent, type } = document.activeElement as HTMLInputElement;
          return id || (type === "file" ? type : textContent) || "";
        }),
      );
      await page.keyboard.press("Tab");
    }
    expect(inDialog).toEqual([
      "Close",
      "Load parrot.gguf",
      "model-url",
      "Load",
      "file",
      "Load parrot.gguf",
    ]);
    await page.keyboard.press("Escape");
    expect(await page.getByRole("dialog").count()).toBe(0);
    expect((await focused()).text).toMatch(/^Model: /);

    // Clear, Remove, system prompt, temperature, most tokens, messages, message.
    const passed: string[] = [];
    while ((await focused()).id !== "message-1" && passed.length < 20) {
      await page.keyboard.press("Tab");
      const { id, text, outline } = await focused();
      expect(outline).toBe(visible);
      passed.push(id || text || "");
    }
    expect(passed.slice(0, 5)).toEqual([
      "Clear Chat 1",
      "Remove Chat 1",
      "system-1",
      "temperature-1",
      "tokens-1",
    ]);
    await page.keyboard.type("first line");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("second line");
    await page.keyboard.press("Enter");
    await untilState(answers(page, 1), "streaming");
    expect(await textOf(chat(page, 1).locator(".question"))).toBe("You: first line\nsecond line");
    expect(await page.getByLabel("Message to chat 1").inputValue()).toBe("");
    // The focus has stayed in the field; stop is two steps on.
    expect((await focused()).id).toBe("message-1");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    expect((await focused()).text).toBe("Stop chat 1");
    await page.keyboard.press("Enter");
    await untilState(answers(page, 1), "stopped");
    expect((await focused()).text).toBe("Stop chat 1");
    await page
      .locator("output.visually-hidden")
      .getByText("Chat 1: answer stopped.")
      .waitFor({ state: "attached" });
    const log = chat(page, 1).getByRole("log");
    expect(await log.getAttribute("aria-live")).toBe("polite");
    expect(await log.getAttribute("aria-busy")).toBe("false");
  });

  it("is readable at 400 pixels, in light and in dark", async () => {
    await page.setViewportSize({ width: 400, height: 800 });
    const word = "x".repeat(300);
    await chat(page, 2).getByLabel("Most tokens").fill("8");
    await page.getByLabel("Message to chat 2").fill(`${word}\n\n    ${word}`);
    await page.getByLabel("Message to chat 2").press("Enter");
    await answers(page, 2)
      .getByText(/\d tokens/)
      .waitFor();
    expect(await overflow(page)).toEqual({ by: 0, wide: [] });
    const pairs = [
      [".prose", ".chat"],
      [".answer-foot", ".chat"],
      [".machine", "html"],
      [".question", ".question"],
    ] as const;
    for (const colorScheme of ["dark", "light"] as const) {
      await page.emulateMedia({ colorScheme });
      // WCAG AA for text of this size.
      expect(Math.min(...(await contrast(page, pairs)))).toBeGreaterThan(4.5);
    }
    await modelButton(page).click();
    expect(await overflow(page)).toEqual({ by: 0, wide: [] });
    await button(page.getByRole("dialog"), "Close").click();
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  it("keeps its header's height at every width when it knows what it runs on", async () => {
    for (const width of [1600, 1499, 1280, 1000, 999, 800, 700, 400]) {
      await page.setViewportSize({ width, height: 800 });
      const heights = await page.evaluate(() => {
        const header = document.querySelector(".page-header")!;
        const text = document.querySelector(".machine")!.lastChild as Text;
        const known = text.data;
        const after = header.getBoundingClientRect().height;
        text.data = "Looking for a GPU…";
        const before = header.getBoundingClientRect().height;
        text.data = known;
        return { before, after };
      });
      expect(heights.after, `at ${width} pixels`).toBe(heights.before);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  it("shows a garbage file's error and what to do, and takes the next file", async () => {
    await modelButton(page).click();
    const dialog = page.getByRole("dialog", { name: "Model" });
    await dialog.locator('input[type="file"]').setInputFiles({
      name: "garbage.gguf",
      mimeType: "application/octet-stream",
      buffer: Buffer.from("This is no model. ".repeat(100)),
    });
    const alert = dialog.getByRole("alert").filter({ hasText: "gguf-invalid" });
    await alert.waitFor({ timeout: LOAD_MS });
    expect(await textOf(alert)).toContain("garbage.gguf");
    expect(await textOf(alert)).toContain("Choose a whole GGUF file");
    expect(await textOf(page.locator(".strip"))).toContain("Loading failed: gguf-invalid");

    await dialog.locator('input[type="file"]').setInputFiles(TINY);
    await untilReady(page);
    expect(await textOf(modelButton(page))).toContain("tiny.gguf");
    expect(await page.getByRole("dialog").count()).toBe(0);
  });

  it("takes a file that is dropped on it", async () => {
    const bytes = TINY.buffer.toString("base64");
    const transfer = await page.evaluateHandle((base64) => {
      const data = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([data], "dropped.gguf"));
      return transfer;
    }, bytes);
    await page.dispatchEvent("main", "dragover", { dataTransfer: transfer });
    await page.getByText("Drop the GGUF file to load it").waitFor();
    await page.dispatchEvent("main", "drop", { dataTransfer: transfer });
    await button(page, /dropped\.gguf/).waitFor();
    await untilReady(page);
    // What was said to the last model would not fit this one's context.
    await button(chat(page, 1), "Clear Chat 1").click();
    await chat(page, 1).getByLabel("Most tokens").fill("2");
    await page.getByLabel("Message to chat 1").fill("Hi");
    await page.getByLabel("Message to chat 1").press("Enter");
    await page
      .locator("output.visually-hidden")
      .getByText(/Chat 1: answer (cut off|finished)/)
      .waitFor({ state: "attached" });
  });

  it("says in the open dialog that one file is to be dropped", async () => {
    await modelButton(page).click();
    const dialog = page.getByRole("dialog", { name: "Model" });
    await dialog.waitFor();
    const transfer = await page.evaluateHandle(() => {
      const transfer = new DataTransfer();
      for (const name of ["one.gguf", "two.gguf"]) transfer.items.add(new File(["a"], name));
      return transfer;
    });
    await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
    const alert = dialog.getByRole("alert").filter({ hasText: "Drop one GGUF file." });
    await alert.waitFor();
    expect(await page.getByText("Drop one GGUF file.").count()).toBe(1);
    await button(alert, "Dismiss").click();
    await alert.waitFor({ state: "detached" });
    await button(dialog, "Close").click();
  });

  it("survives its worker: says so, loads again, goes on", async () => {
    for (const worker of page.workers()) {
      await worker.evaluate(() => (globalThis as unknown as { close(): void }).close());
    }
    await page.locator(".strip").getByText("The engine stopped: worker-failed").waitFor();
    await page.getByLabel("Message to chat 1").fill("Still there?");
    await page.getByLabel("Message to chat 1").press("Enter");
    // Nothing is lost: the text waits for an engine.
    expect(await page.getByLabel("Message to chat 1").inputValue()).toBe("Still there?");
    await button(page, "Load again").click();
    await untilReady(page);
    const before = await answers(page, 1).count();
    await page.getByLabel("Message to chat 1").press("Enter");
    await page
      .locator("output.visually-hidden")
      .getByText(/Chat 1: answer (cut off|finished)/)
      .waitFor({ state: "attached" });
    expect(await answers(page, 1).count()).toBe(before + 1);
  });

  it("lists and deletes stored models", async () => {
    await modelButton(page).click();
    const dialog = page.getByRole("dialog", { name: "Model" });
    await button(dialog, "Delete parrot.gguf").click();
    await dialog.getByText("Nothing yet.").waitFor();
    requests.length = 0;
    await button(dialog, "Load parrot.gguf").click();
    await untilReady(page);
    expect(requests).toContain("/models/parrot.gguf");
    await page.context().close();
  });
});

describe("the demo with an address of its own", () => {
  it("keeps hostile answers and questions inert", async () => {
    const { page, problems } = await openDemo("?model=../models/hostile.gguf&kv=f32&chats=1");
    await untilReady(page);
    expect(await textOf(page.locator(".machine"))).toContain("KV f32");
    requests.length = 0;
    await chat(page, 1).getByLabel("Temperature").fill("0");
    await chat(page, 1).getByLabel("Most tokens").fill("40");
    // Two prompts, so that both texts have been said.
    let said = "";
    for (let i = 0; i < 8 && !(said.includes("onerror") && said.includes("javascript:")); i++) {
      await button(chat(page, 1), "Clear Chat 1").click();
      await page.getByLabel("Message to chat 1").fill(`${HOSTILE[0]} ${i}`);
      await page.getByLabel("Message to chat 1").press("Enter");
      await untilState(answers(page, 1), "length");
      said += await textOf(answers(page, 1));
      expect(await textOf(chat(page, 1).locator(".question"))).toContain(HOSTILE[0]);
      const found = await page.evaluate(() => ({
        elements: document.querySelectorAll(".transcript :is(img, script, iframe, object, svg)")
          .length,
        handlers: [...document.querySelectorAll(".transcript *")].filter((element) =>
          element.getAttributeNames().some((name) => name.startsWith("on")),
        ).length,
        links: [...document.querySelectorAll(".transcript a")].map((a) => a.getAttribute("href")),
        attacked: (globalThis as unknown as { attacked?: number }).attacked,
      }));
      expect(found).toMatchObject({ elements: 0, handlers: 0, attacked: undefined });
      expect(found.links.filter((href) => href !== null)).toEqual([]);
    }
    expect(said).toContain("<img src=x onerror=window.attacked=1>");
    expect(said).toContain("<a href=javascript:window.attacked=4>");
    expect(requests).toEqual([]);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("computes on WASM where the adapter is software, says why, and answers", async () => {
    for (const [query, why] of [
      ["", "WebGPU offers only a software adapter (google swiftshader)"],
      ["?backend=wasm&kv=f32", "It was asked for by name"],
    ] as const) {
      const { page, problems } = await openDemo(query);
      await untilReady(page);
      const line = await textOf(page.locator(".machine"));
      expect(line).toContain(`CPU: WASM SIMD (${why})`);
      expect(line).toMatch(/ · \d threads? · fast \(8-bit activations\) · KV f(16|32)$/);
      const title = await page.locator(".machine").getAttribute("title");
      expect(title).toMatch(/^(WebGPU offers only|It was asked for)/);
      await chat(page, 1).getByLabel("Temperature").fill("0"); // else it may end earlier
      await chat(page, 1).getByLabel("Most tokens").fill("9");
      await page.getByLabel("Message to chat 1").fill("Hello");
      await page.getByLabel("Message to chat 1").press("Enter");
      await untilState(answers(page, 1), "length");
      expect(await textOf(answers(page, 1))).toMatch(/9 tokens/);
      expect(problems).toEqual([]);
      await page.context().close();
    }
  });

  it("names what is wrong with the address", async () => {
    const { page } = await openDemo("?chats=15&kv=f8&fast=1&backend=cuda");
    const notice = page.locator("main > .notice");
    await notice.waitFor();
    expect(await textOf(notice)).toContain("?backend=cuda: valid are auto, webgpu, wasm.");
    expect(await textOf(notice)).toContain("?kv=f8: valid are f16, f32.");
    expect(await textOf(notice)).toContain("?fast is unknown.");
    await button(notice, "Dismiss").click();
    expect(await notice.count()).toBe(0);

    const panels = page.locator("section.chat");
    expect(await panels.count()).toBe(15);
    const add = button(page, "Add chat");
    await add.click();
    expect(await panels.count()).toBe(16);
    await page.waitForFunction(() => document.activeElement?.id === "message-16");
    expect(await add.getAttribute("aria-disabled")).toBe("true");
    await button(chat(page, 3), "Remove Chat 3").click();
    expect(await panels.count()).toBe(15);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("message-4");
    await add.click();
    expect(await chat(page, 3).count()).toBe(1);
    await page.context().close();
  });

  it("cancels a load, and says what is wrong with a URL", async () => {
    const { page } = await openDemo();
    await button(page, "Cancel").click();
    await page.locator(".strip").getByText("No model is loaded.").waitFor();
    await button(page, "Choose a model").last().click();
    const dialog = page.getByRole("dialog", { name: "Model" });
    await dialog.getByLabel("From an address").fill("ftp://example.com/x.gguf");
    await dialog.getByLabel("From an address").press("Enter");
    await dialog.getByText("This is no http or https URL.").waitFor();
    await dialog.getByLabel("From an address").fill("/nowhere.gguf");
    await dialog.getByLabel("From an address").press("Enter");
    await dialog.getByText("source-read", { exact: true }).waitFor();
    // A reload would try the same again.
    expect(new URL(page.url()).searchParams.get("model")).toBe(`${site.url}/nowhere.gguf`);
    await page.context().close();
  });
});
