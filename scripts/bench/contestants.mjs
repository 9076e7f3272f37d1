import { fork } from "node:child_process";
import { launchBrowser } from "../lib/browsers.mjs";
import { inRoot } from "../lib/paths.mjs";
import { beforeEnd } from "../lib/signals.mjs";
import { LOAD_PROMPT } from "./chats.mjs";
import { browserText } from "./machine.mjs";
import { pageObject } from "./pageObject.mjs";

/** @typedef {import("../../e2e/peers/timing.js").ChatTimes} ChatTimes */
/** @typedef {import("../../e2e/peers/peerPage.js").Chats} Chats */
/** @typedef {import("../../e2e/peers/peerPage.js").PeerPage} PeerPage */

/**
 * A runtime that has just been started, with the model loaded.
 * @typedef {object} Contestant
 * @property {number} loadMs from opening the local file to the first token
 * @property {Record<string, unknown>} about what the runtime says of itself
 * @property {string | null} browser name and version
 * @property {(chats: Chats) => Promise<ChatTimes[]>} run
 * @property {() => Promise<void>} close
 */

/**
 * Opens a runtime of e2e/peers in a browser of its own, on a page of `url`.
 * @param {object} settings
 * @param {import("../lib/browsers.mjs").BrowserName} settings.name
 * @param {string} settings.program
 * @param {string} settings.url
 * @param {"quire" | "wllama"} settings.peer
 * @param {string} settings.model path of the file
 * @param {Readonly<Record<string, unknown>>} settings.options the runtime's own
 * @returns {Promise<Contestant>}
 */
export async function openInBrowser({ name, program, url, peer, model, options }) {
  const { browser, close } = await launchBrowser(name, program, undefined);
  try {
    const page = await browser.newPage();
    await page.goto(`${url}/peer.html?${peer}`);
    await page.waitForFunction(() => "peerPage" in globalThis);
    await page.locator("#model").setInputFiles(model);
    const remote = /** @type {import("./pageObject.mjs").FromOutside<PeerPage>} */ (
      pageObject(page, "peerPage")
    );
    const { loadMs, about } = await remote.open(options, LOAD_PROMPT);
    return {
      loadMs,
      about: /** @type {Record<string, unknown>} */ (about),
      browser: browserText(name, browser.version()),
      run: (chats) => remote.run(chats),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Native llama.cpp in a process of its own.
 * @param {{ modelPath: string, threads: number, contextSize: number }} options
 * @returns {Promise<Contestant>}
 */
export async function openLlamaCpp(options) {
  const child = fork(inRoot("e2e/peers/llamaCpp.mjs"), {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const forget = beforeEnd(() => child.kill());
  const ended = new Promise((done) => child.once("exit", done)).finally(forget);
  const call = async (/** @type {unknown[]} */ ...message) => {
    const answer = new Promise((done) => child.once("message", done));
    child.send(message);
    const reply = /** @type {{ value?: any, error?: string } | number | null} */ (
      await Promise.race([answer, ended])
    );
    if (reply === null || typeof reply === "number") {
      throw new Error(`The process of llama.cpp ended with ${reply}.`);
    }
    if (reply.error !== undefined) throw new Error(`llama.cpp: ${reply.error}`);
    return reply.value;
  };
  const close = async () => {
    child.kill();
    await ended;
  };
  try {
    const { loadMs, about } = await call("open", options, LOAD_PROMPT);
    return { loadMs, about, browser: null, run: (chats) => call("run", chats), close };
  } catch (error) {
    await close();
    throw error;
  }
}
