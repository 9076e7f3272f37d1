// One runtime in a page, `peer.html?quire` or `peer.html?wllama`, driven by `npm run bench`.

import { timeChats, WARM_UP_TOKENS } from "./timing.js";

/**
 * A runtime with a model.
 * @typedef {object} Peer
 * @property {(file: File, options: any) => Promise<void>} open starts it and loads the model
 * @property {import("./timing.js").Generate} generate
 * @property {() => unknown} describe plain data
 * @property {() => Promise<void>} close
 */

/** @typedef {{ prompts: readonly string[], maxTokens: number, stallMs: number }} Chats */

const { peer } = /** @type {{ peer: Peer }} */ (
  await import(`./${new URLSearchParams(location.search).keys().next().value}.js`)
);

const peerPage = {
  /**
   * Starts the runtime on the file of the page's input. Resolves to the ms from there to the first
   * token of an answer to `prompt`, and to what the runtime says of itself.
   * @param {unknown} options
   * @param {string} prompt
   */
  async open(options, prompt) {
    const input = /** @type {HTMLInputElement} */ (document.getElementById("model"));
    const file = input.files?.[0];
    if (file === undefined) throw new Error("The page was given no model.");
    const start = performance.now();
    await peer.open(file, options);
    const openMs = performance.now() - start;
    const chats = { prompts: [prompt], maxTokens: WARM_UP_TOKENS, stallMs: 60_000 };
    const [chat] = await timeChats(peer.generate, chats);
    const firstMs = chat?.arrivals[0];
    if (firstMs === undefined) throw new Error("The runtime loaded and answered nothing.");
    return { loadMs: openMs + firstMs, about: peer.describe() };
  },
  /** @param {Chats} chats */
  run: (chats) => timeChats(peer.generate, chats),
  close: () => peer.close(),
};
Object.assign(globalThis, { peerPage });

/** @typedef {typeof peerPage} PeerPage */
