import { expect, it } from "vitest";
import { ensureBrowser, ensureLavapipe, launchBrowser } from "../../scripts/lib/browsers.mjs";
import { openPageAt } from "./site.ts";
import { openSources } from "./sources.ts";
import type { WorkgroupCheck } from "./workgroupCheck.page.ts";

declare const checkWorkgroups: () => Promise<WorkgroupCheck>;

// Firefox compiles WGSL with another compiler than Chromium and Dawn. Its adapter is software here, which gets the
// flat kernels unless others are asked for.
it("kernels that share work within a workgroup pass the start-up check in Firefox", async () => {
  const sources = await openSources();
  const firefox = await launchBrowser(
    "firefox",
    await ensureBrowser("firefox"),
    await ensureLavapipe(),
  );
  try {
    const { page } = await openPageAt(firefox.browser, sources.blankPage);
    await page.addScriptTag({ type: "module", url: "/e2e/browser/workgroupCheck.page.ts" });
    await page.waitForFunction(() => "checkWorkgroups" in globalThis);
    const found = await page.evaluate(() => checkWorkgroups());
    console.info(`worst error ${found.worst}`);
    expect(found.numLogits).toBeGreaterThan(100);
    expect(found.worst).toBeLessThan(4e-3);
    expect(found.isBatchInvariant).toBe(true);
  } finally {
    await firefox.close();
    await sources.close();
  }
});
