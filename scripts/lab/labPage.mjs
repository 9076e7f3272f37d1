import { readFileSync } from "node:fs";
import { pageObject } from "../bench/pageObject.mjs";
import { ensureBrowser, openPage } from "../lib/browsers.mjs";
import { ensureLibrary } from "../lib/build.mjs";
import { ensureDefaultModel } from "../lib/model.mjs";
import { inRoot } from "../lib/paths.mjs";
import { startServer } from "../lib/server.mjs";

/** @typedef {import("../bench/pageObject.mjs").FromOutside<import("../pages/labArrivals.js").LabPage>} LabPage */

/**
 * Opens the lab's page with the default model and a text of ours, and closes everything afterwards.
 * @template T
 * @param {(lab: LabPage, textTokens: number) => Promise<T>} run
 * @returns {Promise<T>}
 */
export async function inLabPage(run) {
  await ensureLibrary();
  const model = await ensureDefaultModel();
  await ensureBrowser("chromium");
  const modelUrl = `/model/${model.name}`;
  const server = await startServer({
    folders: { "/": inRoot("scripts/pages"), "/dist/": inRoot("dist") },
    files: { [modelUrl]: model.path },
  });
  try {
    const url = `${server.url}/labArrivals.html`;
    const { page, close } = await openPage({ name: "chromium", url, adapter: "none" });
    try {
      await page.waitForFunction(() => "lab" in globalThis);
      const lab = /** @type {LabPage} */ (pageObject(page, "lab"));
      const { textTokens } = await lab.open({
        library: "/dist/index.js",
        model: { url: modelUrl, name: model.name, byteLength: model.bytes },
        text: readFileSync(inRoot("e2e/fixtures/perplexity.txt"), "utf8"),
      });
      const result = await run(lab, textTokens);
      await lab.close();
      return result;
    } finally {
      await close();
    }
  } finally {
    await server.close();
  }
}
