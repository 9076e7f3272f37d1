import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Browser, Page } from "playwright";
import { ensureBrowser, launchBrowser } from "../../scripts/lib/browsers.mjs";
import { type ServerOptions, startServer } from "../../scripts/lib/server.mjs";
import { beforeEnd } from "../../scripts/lib/signals.mjs";

/** A folder of files, served on this machine. */
export interface Site {
  /** Without a slash at its end. */
  readonly url: string;
  readonly folder: string;
  close(): Promise<void>;
}

/** A page that has the library at /index.js as the global `quire`. */
export const LIBRARY_PAGE = `<!doctype html><meta charset="utf-8"><title>quire</title><link rel="icon" href="data:,">
<script type="module">import * as quire from "/index.js"; globalThis.quire = quire;</script>`;

/** Serves `files` (path to content) and whatever else the options name. */
export async function openSite(
  files: Readonly<Record<string, string | Uint8Array>>,
  options: ServerOptions = {},
): Promise<Site> {
  const folder = mkdtempSync(join(tmpdir(), "quire-site-"));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  const server = await startServer({ ...options, folders: { "/": folder, ...options.folders } });
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const forget = beforeEnd(remove);
  const close = async (): Promise<void> => {
    await server.close();
    forget();
    remove();
  };
  return { url: server.url, folder, close };
}

/** Chromium on its software adapter, which gives the same results everywhere. */
export async function openChromium(): Promise<{ browser: Browser; close: () => Promise<void> }> {
  return launchBrowser("chromium", await ensureBrowser("chromium"), "swiftshader");
}

/** A fresh page in a context of its own, with what went wrong in it. */
export async function openPageAt(
  browser: Browser,
  url: string,
): Promise<{ page: Page; problems: string[] }> {
  const context = await browser.newContext();
  const page = await context.newPage();
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(message.text());
  });
  await page.goto(url);
  return { page, problems };
}
