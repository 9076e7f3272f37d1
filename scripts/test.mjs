import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { aptInstall, canInstall, installedVersion } from "./lib/apt.mjs";
import { ensureBrowser, ensureLavapipe, findLavapipe, swiftshaderIcd } from "./lib/browsers.mjs";
import { ensureLibrary } from "./lib/build.mjs";
import { packageBin, run } from "./lib/command.mjs";
import { runMain, SetupError } from "./lib/errors.mjs";
import { helpText, parseFlags } from "./lib/flags.mjs";
import { ensureDefaultModel } from "./lib/model.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { inRoot } from "./lib/paths.mjs";
import { say } from "./lib/progress.mjs";
import { listFiles } from "./lib/stamp.mjs";
import { countVitest, totalsLine } from "./lib/totals.mjs";

const FLAGS = /** @satisfies {Record<string, import("./lib/flags.mjs").Flag>} */ (
  /** @type {const} */ ({
    all: { type: "boolean", help: "the slow, Firefox and lavapipe tests too" },
  })
);
const REPORT = inRoot(".cache/tests.json");

await runMain(async () => {
  const { values, positionals, help } = parseFlags(process.argv.slice(2), FLAGS, {
    positionals: "files",
  });
  if (help) {
    process.stdout.write(helpText("npm test [-- part of a test file's name ...]", FLAGS));
    return;
  }
  await ensurePackages();
  await ensureDefaultModel();
  await ensureLibrary();
  const chromium = await ensureBrowser("chromium");
  if (values.all) {
    await ensureBrowser("firefox");
    await ensureLavapipe();
  }
  const loader = await vulkanLoader(chromium);
  if (swiftshaderIcd(chromium) === undefined) {
    throw new SetupError(
      "setup-swiftshader",
      `${chromium} comes without vk_swiftshader_icd.json, which the GPU tests need. ` +
        "Install Debian's chromium, or let CHROME_PATH name it.",
    );
  }
  mkdirSync(dirname(REPORT), { recursive: true });
  rmSync(REPORT, { force: true });
  const code = await run(
    packageBin("vitest"),
    ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${REPORT}`, ...positionals],
    {
      stdout: "inherit",
      env: {
        ...process.env,
        ...loader,
        CHROME_PATH: chromium,
        ...(values.all ? { QUIRE_TEST_ALL: "1" } : {}),
      },
    },
  );
  if (!existsSync(REPORT)) {
    throw new SetupError("tests", `vitest ended with exit code ${code} and wrote no report.`);
  }
  const totals = countVitest(JSON.parse(readFileSync(REPORT, "utf8")), code);
  totals.skipped += await lavapipeSkips();
  process.stdout.write(`${totalsLine(totals)}\n`);
  return totals.failed > 0 ? 1 : 0;
});

/** GPU test files that had no lavapipe to run on, with a word about it. */
async function lavapipeSkips() {
  if ((await findLavapipe()) !== undefined) return 0;
  const files = listFiles(inRoot("e2e/gpu")).filter(
    (file) => file.endsWith(".test.ts") && !file.endsWith(".slow.test.ts"),
  );
  say(
    `Skipped on lavapipe: ${files.length} GPU test files. It is not installed (or is older than ` +
      "Mesa 25); npm run test:all sets it up.",
  );
  return files.length;
}

/**
 * What Dawn needs to find a Vulkan loader: Debian's, else the one that Chromium brings along.
 * @param {string} chromium
 * @returns {Promise<Record<string, string>>}
 */
async function vulkanLoader(chromium) {
  if ((await installedVersion("libvulkan1")) !== undefined) return {};
  if (canInstall()) {
    await aptInstall(["libvulkan1"]);
    return {};
  }
  const icd = swiftshaderIcd(chromium);
  if (icd === undefined || !existsSync(join(dirname(icd), "libvulkan.so.1"))) return {};
  const folders = [dirname(icd), process.env["LD_LIBRARY_PATH"]].filter(Boolean);
  return { LD_LIBRARY_PATH: folders.join(":") };
}
