import type { Browser, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEMO_FOLDER, ensureDemo } from "../../scripts/lib/build.mjs";
import { makeParrotModel } from "../fixtures/parrotModel.ts";
import {
  answers,
  button,
  chat,
  contrast,
  LOAD_MS,
  openDemoAt,
  overflow,
  untilReady,
  untilState,
} from "./demoPage.ts";
import { openChromium, openSite, type Site } from "./site.ts";

// Several answers to one message in the built demo: side by side, and one to go on with.

let site: Site;
let browser: Browser;
let closeBrowser: () => Promise<void>;
let page: Page;
let problems: string[];

beforeAll(async () => {
  await ensureDemo();
  site = await openSite(
    {
      "models/parrot.gguf": await makeParrotModel(["one **two** ", "three `four`\n"], {
        contextLength: 8192,
      }),
    },
    {
      folders: { "/demo/": DEMO_FOLDER },
      json: { "/demo/quire.json": { model: { url: "/models/parrot.gguf", name: "parrot.gguf" } } },
    },
  );
  ({ browser, close: closeBrowser } = await openChromium());
  ({ page, problems } = await openDemoAt(browser, site, "?backend=webgpu"));
  // What the page asks its worker for. (WASM would reach the end of an answer before a test can stop it.)
  await page.evaluate(() => {
    const submitted: unknown[] = [];
    Object.assign(globalThis, { submitted });
    const post = MessagePort.prototype.postMessage;
    MessagePort.prototype.postMessage = function (this: MessagePort, ...args: unknown[]) {
      const message = args[0] as { type?: string; request?: unknown };
      if (message?.type === "submit") submitted.push(message.request);
      return post.apply(this, args as never);
    };
  });
  await untilReady(page);
}, LOAD_MS);

afterAll(async () => {
  await closeBrowser?.();
  await site?.close();
});

/** The latest request of the page. */
function lastRequest(): Promise<{
  n: number;
  prompt: { messages: { role: string; content: string }[] };
}> {
  return page.evaluate(() => (globalThis as unknown as { submitted: never[] }).submitted.at(-1)!);
}

async function ask(text: string): Promise<void> {
  await page.getByLabel("Message to chat 1").fill(text);
  await page.getByLabel("Message to chat 1").press("Enter");
}

/** By itself: at this temperature the model may also end its answer. */
async function untilEnded(number: number): Promise<void> {
  const answer = answers(page, 1).nth(number);
  await answer.and(page.locator('[data-state="length"], [data-state="stop"]')).waitFor();
}

const boxes = () =>
  page.evaluate(() => {
    const box = (element: Element) => {
      const { left, top, width, height } = element.getBoundingClientRect();
      return { left, top, width, height };
    };
    const last = document.querySelector(".turn:last-child .answers");
    return {
      composer: box(document.querySelector(".composer")!),
      transcript: box(document.querySelector(".transcript")!),
      answers: last === null ? [] : [...last.children].map(box),
    };
  });

const chooseButtons = () => chat(page, 1).getByRole("button", { name: /^Go on with this answer/ });
/** What the latest request holds of one role. */
const saidBy = async (role: string) =>
  (await lastRequest()).prompt.messages.filter((m) => m.role === role).map((m) => m.content);
/** Texts of the answers of a turn, from 0. */
const proses = (turn: number) =>
  chat(page, 1).locator(".turn").nth(turn).locator(".prose").allTextContents();

describe("several answers", () => {
  it("are asked for with the keyboard and come side by side, without a jump around them", async () => {
    await chat(page, 1).getByLabel("Temperature").fill("2");
    await chat(page, 1).getByLabel("Most tokens").fill("24");
    const count = chat(page, 1).getByRole("combobox", { name: "Answers to a message of chat 1" });
    await page.getByLabel("Message to chat 1").focus();
    for (let i = 0; i < 3; i++) await page.keyboard.press("Tab");
    expect(await count.evaluate((select) => select === document.activeElement)).toBe(true);
    for (let i = 0; i < 2; i++) await page.keyboard.press("ArrowDown");
    expect(await count.inputValue()).toBe("3");
    expect(await count.locator("option").allTextContents()).toEqual([
      "1 answer",
      "2 answers",
      "3 answers",
      "4 answers",
    ]);

    const before = await boxes();
    await ask("Hello");
    await answers(page, 1).nth(2).waitFor();
    const early = await boxes();
    for (let i = 0; i < 3; i++) await untilEnded(i);
    const after = await boxes();
    expect((await lastRequest()).n).toBe(3);
    expect(new Set(await proses(0)).size).toBe(3);
    const { composer, transcript } = before;
    expect([after.composer, after.transcript]).toEqual([composer, transcript]);
    const [one, two, three] = after.answers;
    expect([two!.top, three!.top]).toEqual([one!.top, one!.top]);
    expect(two!.left).toBeGreaterThan(one!.left + one!.width);
    expect(three!.left).toBeGreaterThan(two!.left + two!.width);
    const columns = (list: typeof after.answers) => list.map(({ left, width }) => [left, width]);
    expect(columns(early.answers)).toEqual(columns(after.answers));
    expect(early.answers[0]!.top).toBe(one!.top);
    expect(await page.locator("output.visually-hidden").textContent()).toContain(
      "Chat 1: the answers have ended.",
    );
  });

  it("one is chosen with the keyboard; the others leave the history", async () => {
    const texts = await proses(0);
    // One that ended at once says nothing and cannot be chosen.
    const chosen = texts.findLastIndex((text) => text !== "");
    await chooseButtons().nth(chosen).focus();
    await page.keyboard.press("Enter");
    expect(await proses(0)).toEqual([texts[chosen]]);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("message-1");
    expect(await chooseButtons().count()).toBe(0);
    expect(await page.locator("output.visually-hidden").textContent()).toContain(
      `Chat 1: goes on with answer ${chosen + 1} of 3.`,
    );
    await ask("Go on");
    for (let i = 1; i < 4; i++) await untilEnded(i);
    expect(await saidBy("user")).toEqual(["Hello", "Go on"]);
    const [said, ...others] = await saidBy("assistant");
    expect(others).toEqual([]);
    // Shown as Markdown, sent as it was written.
    const letters = (text: string) => text.replace(/[^\p{L}\p{N}]/gu, "");
    expect(letters(said!)).toBe(letters(texts[chosen]!));
  });

  it("without a choice the first that says something is gone on with", async () => {
    const first = (await proses(1)).find((text) => text !== "");
    await chat(page, 1).getByRole("combobox").selectOption("1");
    await ask("And on");
    await untilEnded(2);
    expect(await proses(1)).toEqual([first]);
    expect(await saidBy("user")).toEqual(["Hello", "Go on", "And on"]);
    expect(await lastRequest()).toMatchObject({ n: 1 });
    expect(await chooseButtons().count()).toBe(0);
  });

  it("stop together; a stopped one can be gone on with, and all can be asked for again", async () => {
    await button(chat(page, 1), "Clear Chat 1").click();
    await chat(page, 1).getByRole("combobox").selectOption("4");
    await chat(page, 1).getByLabel("Most tokens").fill("8000");
    await chat(page, 1).getByLabel("Temperature").fill("0"); // never ends
    await ask("Long");
    await untilState(answers(page, 1).nth(3), "streaming");
    // Nothing can be chosen while they come.
    expect(await chooseButtons().first().getAttribute("aria-disabled")).toBe("true");
    await chooseButtons().first().focus();
    await page.keyboard.press("Enter");
    expect(await answers(page, 1).count()).toBe(4);
    await button(chat(page, 1), "Stop chat 1").click();
    for (let i = 0; i < 4; i++) await untilState(answers(page, 1).nth(i), "stopped");
    expect(await button(chat(page, 1), "Retry").count()).toBe(1);
    await button(chat(page, 1), "Retry").click();
    await untilState(answers(page, 1).nth(3), "streaming");
    expect(await answers(page, 1).count()).toBe(4);
    await button(chat(page, 1), "Stop chat 1").click();
    await untilState(answers(page, 1).nth(3), "stopped");
    await chooseButtons().nth(3).click();
    expect(await answers(page, 1).count()).toBe(1);
    expect(await answers(page, 1).getAttribute("data-state")).toBe("stopped");
  });

  it("lie below each other at 400 pixels, readable in light and in dark", async () => {
    await button(chat(page, 1), "Clear Chat 1").click();
    await chat(page, 1).getByLabel("Most tokens").fill("12");
    await ask("Short");
    for (let i = 0; i < 4; i++) await untilEnded(i);
    await page.setViewportSize({ width: 400, height: 800 });
    const stacked = (await boxes()).answers;
    expect(stacked).toHaveLength(4);
    for (const [i, { left, top }] of stacked.entries()) {
      expect(left).toBe(stacked[0]!.left);
      if (i > 0) expect(top).toBeGreaterThan(stacked[i - 1]!.top + stacked[i - 1]!.height);
    }
    expect(await overflow(page)).toEqual({ by: 0, wide: [] });
    for (const colorScheme of ["dark", "light"] as const) {
      await page.emulateMedia({ colorScheme });
      const ratios = await contrast(page, [
        [".choose", ".choose"],
        [".answer-foot", ".chat"],
        [".composer select", ".composer select"],
      ]);
      // WCAG AA for text of this size.
      expect(Math.min(...ratios), colorScheme).toBeGreaterThan(4.5);
    }
    expect(problems).toEqual([]);
  });
});
