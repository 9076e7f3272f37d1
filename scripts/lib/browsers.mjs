import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { aptInstall, canInstall, ensureBackports, installedVersion } from "./apt.mjs";
import { capture, findOnPath, isExecutable } from "./command.mjs";
import { SetupError } from "./errors.mjs";
import { say } from "./progress.mjs";
import { beforeEnd } from "./signals.mjs";

/** @typedef {"chromium" | "firefox"} BrowserName */

/**
 * What a page's `navigator.gpu` says about its adapter.
 * @typedef {object} PageAdapter
 * @property {string} vendor
 * @property {string} architecture
 * @property {string} description
 * @property {boolean} isFallback a software adapter
 */

/**
 * @typedef {object} OpenPage
 * @property {import("playwright").Browser} browser
 * @property {import("playwright").Page} page
 * @property {PageAdapter | null} adapter null where WebGPU offers none
 * @property {() => Promise<void>} close ends the browser and removes its throwaway folder
 */

const NAMES = {
  chromium: ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"],
  firefox: ["firefox-esr", "firefox"],
};
const VARIABLES = /** @type {const} */ ({ chromium: "CHROME_PATH", firefox: "FIREFOX_PATH" });
const PACKAGES = { chromium: "chromium", firefox: "firefox-esr" };

const CHROMIUM_FLAGS = [
  // Chromium on Linux keeps WebGPU behind this flag.
  "--enable-unsafe-webgpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const SOFTWARE_FLAG = "--use-webgpu-adapter=swiftshader";

const FIREFOX_PREFS = {
  "dom.webgpu.enabled": true,
  "dom.webgpu.workers.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
};

/** Debian 12's own Mesa (22.3) has a lavapipe too old for WebGPU; this one was tried. */
const MIN_MESA_MAJOR = 25;
const ICD_FOLDER = "/usr/share/vulkan/icd.d";

/**
 * The browser's program: named by CHROME_PATH or FIREFOX_PATH, else on the PATH, else installed (as
 * root on Debian), else a SetupError that says what to type.
 * @param {BrowserName} name
 * @returns {Promise<string>}
 */
export async function ensureBrowser(name) {
  const variable = VARIABLES[name];
  const named = process.env[variable];
  if (named !== undefined && named !== "") {
    if (isExecutable(named)) return named;
    throw new SetupError("setup-browser", `${variable} names ${named}, which is no program.`);
  }
  const found = findOnPath(NAMES[name]);
  if (found !== undefined) return found;
  const by = `Install it (Debian, as root: apt-get install ${PACKAGES[name]}) or set ${variable}.`;
  if (!canInstall()) throw new SetupError("setup-browser", `There is no ${name} here. ${by}`);
  await aptInstall([PACKAGES[name], "fonts-dejavu-core"]);
  const installed = findOnPath(NAMES[name]);
  if (installed !== undefined) return installed;
  throw new SetupError(
    "setup-browser",
    `apt-get installed ${name}, but it is not on the PATH. ${by}`,
  );
}

/**
 * Chromium's own software Vulkan driver, for Dawn outside a browser.
 * @param {string} [program] Chromium; without it the usual folders are looked through
 * @returns {string | undefined} path of its ICD file
 */
export function swiftshaderIcd(program) {
  const folders = ["/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome"];
  // What is on the PATH may be a link to the program in its own folder.
  if (program && existsSync(program)) folders.unshift(dirname(realpathSync(program)));
  return folders.map((folder) => join(folder, "vk_swiftshader_icd.json")).find(existsSync);
}

/**
 * Mesa's software Vulkan driver, if one is installed that is new enough.
 * @returns {Promise<string | undefined>} path of its ICD file
 */
export async function findLavapipe() {
  if (!existsSync(ICD_FOLDER)) return undefined;
  const file = readdirSync(ICD_FOLDER).find((name) => /^lvp_icd.*\.json$/.test(name));
  if (file === undefined) return undefined;
  const version = await installedVersion("mesa-vulkan-drivers");
  const major =
    version === undefined ? Number.NaN : Number.parseInt(version.replace(/^\d+:/, ""), 10);
  return major < MIN_MESA_MAJOR ? undefined : join(ICD_FOLDER, file);
}

/** Lavapipe, installed from Debian's backports if need be. @returns {Promise<string>} */
export async function ensureLavapipe() {
  const found = await findLavapipe();
  if (found !== undefined) return found;
  if (canInstall()) {
    const release = await ensureBackports();
    await aptInstall(["mesa-vulkan-drivers", "libvulkan1"], { release });
    const installed = await findLavapipe();
    if (installed !== undefined) return installed;
  }
  throw new SetupError(
    "setup-lavapipe",
    `The software Vulkan driver lavapipe (Mesa ${MIN_MESA_MAJOR} or newer) is missing. Debian 12, as root: ` +
      "add bookworm-backports to apt's sources, then apt-get install -t bookworm-backports mesa-vulkan-drivers",
  );
}

/**
 * Opens a URL of this machine in a headless browser with WebGPU. The browser chooses its adapter
 * freely; only if it finds none is it started again on a software adapter (`auto`). `software`
 * forces that one at once, for the same results everywhere; `none` takes what there is.
 * @param {{ name: BrowserName, url: string, adapter?: "auto" | "software" | "none" }} options
 * @returns {Promise<OpenPage>}
 */
export async function openPage({ name, url, adapter = "auto" }) {
  const program = await ensureBrowser(name);
  if (adapter !== "software") {
    const free = await launch(name, program, undefined, url);
    if (free.adapter !== null || adapter === "none") return free;
    await free.close();
    say(`${name} found no GPU adapter; starting it again on a software adapter.`);
  }
  const icd = name === "firefox" ? await ensureLavapipe() : "swiftshader";
  const forced = await launch(name, program, icd, url);
  if (forced.adapter !== null) return forced;
  await forced.close();
  throw new SetupError(
    "webgpu-unavailable",
    `${name} (${program}) offers no WebGPU adapter, not even in software. Chromium 113 or Firefox 141 is the least.`,
  );
}

/**
 * Starts a browser with a throwaway profile, which a signal that ends this process closes. Does not
 * look for the page's adapter.
 * @param {BrowserName} name
 * @param {string} program
 * @param {string | undefined} software for Firefox the ICD file of lavapipe; undefined = free choice
 * @returns {Promise<{ browser: import("playwright").Browser, close: () => Promise<void> }>}
 */
export async function launchBrowser(name, program, software) {
  const { chromium, firefox } = await import("playwright");
  const home = mkdtempSync(join(tmpdir(), "quire-browser-"));
  const removeHome = () =>
    rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  /** @type {import("playwright").Browser | undefined} */
  let browser;
  const forget = beforeEnd(async () => {
    // At the exit Playwright kills a browser that is still starting; its folder goes after that.
    process.once("exit", removeHome);
    await browser?.close();
    removeHome();
  });
  const env = /** @type {Record<string, string>} */ ({ ...process.env, XDG_RUNTIME_DIR: home });
  // Playwright would close the browser at once; `ask` ends the requests first.
  const ownSignals = { handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false };
  const common = { executablePath: program, ...ownSignals };
  try {
    const opened =
      name === "chromium"
        ? await chromium.launch({
            ...common,
            env,
            args: software === undefined ? CHROMIUM_FLAGS : [...CHROMIUM_FLAGS, SOFTWARE_FLAG],
          })
        : await firefox.launch({
            ...common,
            // Stock Firefox speaks WebDriver BiDi only, which is what this channel is for.
            channel: "moz-firefox",
            firefoxUserPrefs: FIREFOX_PREFS,
            env: { ...env, HOME: home, ...(software ? { VK_ICD_FILENAMES: software } : {}) },
          });
    browser = opened;
    const close = async () => {
      await opened.close();
      removeHome();
      forget();
    };
    return { browser: opened, close };
  } catch (error) {
    removeHome();
    forget();
    const [message = "", log] = String(error).split("Call log:");
    if (log !== undefined) say(log.trimEnd());
    const { stdout } = await capture(program, ["--version"]);
    throw new SetupError(
      "browser-start",
      `${program} (${stdout.trim()}) did not start: ${message.trim()}. Tried: Chromium 156, Firefox ESR 153.`,
      { cause: error },
    );
  }
}

/**
 * @param {BrowserName} name
 * @param {string} program
 * @param {string | undefined} software
 * @param {string} url
 * @returns {Promise<OpenPage>}
 */
async function launch(name, program, software, url) {
  const { browser, close } = await launchBrowser(name, program, software);
  try {
    const page = await browser.newPage();
    await page.goto(url);
    const adapter = await page.evaluate(async () => {
      const found = (await navigator.gpu?.requestAdapter()) ?? null;
      if (found === null) return null;
      const { vendor, architecture, description } = found.info;
      const isFallback = found.info.isFallbackAdapter ?? false;
      return { vendor, architecture, description, isFallback };
    });
    return { browser, page, adapter, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * An adapter in words. Never calls a software adapter a GPU.
 * @param {PageAdapter | null} adapter
 */
export function describeAdapter(adapter) {
  if (adapter === null) return "no adapter";
  const words = [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean);
  const name = words.join(" ") || "unnamed";
  return adapter.isFallback ? `software adapter (${name}), no GPU` : `GPU (${name})`;
}
