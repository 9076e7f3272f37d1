import type { Browser, BrowserContextOptions, Locator, Page } from "playwright";
import type { Site } from "./site.ts";

// The demo as its tests use it.

/** Software adapters compile pipelines slowly, and more so on a busy machine. */
export const LOAD_MS = 120_000;
/** Chats share the processor with whatever else the machine does. */
const ANSWER_MS = 60_000;

export interface OpenDemo {
  readonly page: Page;
  /** What the page complained about. */
  readonly problems: string[];
}

/** The demo of a site, under its path `/demo/`, in a context of its own. */
export async function openDemoAt(
  browser: Browser,
  site: Site,
  query: string,
  options: BrowserContextOptions = {},
): Promise<OpenDemo> {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    reducedMotion: "reduce",
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(ANSWER_MS);
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(message.text());
  });
  await page.addInitScript(() => {
    const shifts: number[] = [];
    Object.assign(globalThis, { shifts });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { value, hadRecentInput } = entry as unknown as {
          value: number;
          hadRecentInput: boolean;
        };
        if (!hadRecentInput) shifts.push(value);
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.goto(`${site.url}/demo/${query}`);
  return { page, problems };
}

/** Layout shift so far, without what the user's own actions caused. */
export function layoutShift(page: Page): Promise<number> {
  return page.evaluate(() =>
    (globalThis as unknown as { shifts: number[] }).shifts.reduce((sum, one) => sum + one, 0),
  );
}

/** Waits until the engine can take messages. */
export async function untilReady(page: Page): Promise<void> {
  await page.getByTestId("kv-blocks").waitFor({ timeout: LOAD_MS });
}

export const chat = (page: Page, id: number): Locator =>
  page.getByRole("region", { name: `Chat ${id}`, exact: true });
export const answers = (page: Page, id: number): Locator => chat(page, id).locator(".answer");
export const button = (at: Page | Locator, name: string | RegExp): Locator =>
  at.getByRole("button", { name, exact: true });

export async function untilState(answer: Locator, state: string): Promise<void> {
  await answer.and(answer.page().locator(`[data-state="${state}"]`)).waitFor();
}

export const textOf = async (locator: Locator): Promise<string> =>
  (await locator.textContent()) ?? "";

/** What sticks out of the page to the right, but for what scrolls by itself. */
export function overflow(page: Page): Promise<{ by: number; wide: string[] }> {
  return page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    const wide = [...document.querySelectorAll("body *")].filter((element) => {
      const { right, width } = element.getBoundingClientRect();
      return width > 1 && right > clientWidth + 0.5 && element.closest("pre, table") === null;
    });
    return { by: scrollWidth - clientWidth, wide: wide.map((element) => element.className) };
  });
}

/** WCAG contrast of an element's text to another's background: `[text, ground]` selectors. */
export function contrast(
  page: Page,
  pairs: readonly (readonly [text: string, ground: string])[],
): Promise<number[]> {
  return page.evaluate((selectors) => {
    const channels = (color: string) => (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
    const luminance = (color: string) => {
      const [r, g, b] = channels(color).map((channel) => {
        const part = channel / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      }) as [number, number, number];
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return selectors.map(([text, ground]) => {
      const a = luminance(getComputedStyle(document.querySelector(text)!).color);
      const b = luminance(getComputedStyle(document.querySelector(ground)!).backgroundColor);
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
  }, pairs);
}
