import { ensureBrowser } from "../lib/browsers.mjs";
import { ensureLibrary } from "../lib/build.mjs";
import { ensureDefaultModel } from "../lib/model.mjs";
import { inRoot } from "../lib/paths.mjs";
import { say } from "../lib/progress.mjs";
import { startServer } from "../lib/server.mjs";
import { summarize } from "../lib/statistics.mjs";
import { benchmark } from "./benchmarks.mjs";
import { CHAT_CASES, MAX_TOKENS } from "./chats.mjs";
import { openInBrowser } from "./contestants.mjs";
import { backendText, describeEnvironment, environmentLines } from "./machine.mjs";
import { decodeRate, totalRate } from "./rates.mjs";
import { alignTable, digits } from "./rows.mjs";

/** @typedef {import("../lib/browsers.mjs").BrowserName} BrowserName */

/**
 * A way to run the WASM back end.
 * @typedef {object} Setting
 * @property {BrowserName} browser
 * @property {boolean} isolated
 * @property {"auto" | "plain"} simd
 */

/** @type {readonly Setting[]} */
const SETTINGS = [
  { browser: "chromium", isolated: true, simd: "auto" },
  { browser: "chromium", isolated: true, simd: "plain" },
  { browser: "chromium", isolated: false, simd: "auto" },
  { browser: "chromium", isolated: false, simd: "plain" },
  { browser: "firefox", isolated: true, simd: "auto" },
  { browser: "firefox", isolated: true, simd: "plain" },
  { browser: "firefox", isolated: false, simd: "auto" },
];

/** Chats of each setting: one alone, then eight together. */
const CASES = /** @type {const} */ ({ one: CHAT_CASES.one, eight: CHAT_CASES.eight });
const STALL_MS = 60_000;

/**
 * The same chats on WASM in every browser, with and without isolation and relaxed SIMD: the speeds,
 * and whether the tokens are the same. One setting after the other, then all of them again.
 * @param {import("./options.mjs").BenchOptions} options
 */
export async function measureBrowsers(options) {
  await ensureLibrary();
  const model = await ensureDefaultModel();
  const programs = {
    chromium: await ensureBrowser("chromium"),
    firefox: await ensureBrowser("firefox"),
  };
  const folders = { "/": inRoot("e2e/peers"), "/dist/": inRoot("dist") };
  const servers = new Map([
    [true, await startServer({ folders })],
    [false, await startServer({ folders, isolated: false })],
  ]);
  const outcomes = SETTINGS.map((setting) => ({
    setting,
    title: "",
    tokens: /** @type {string[]} */ ([]),
    one: /** @type {number[]} */ ([]),
    eight: /** @type {number[]} */ ([]),
  }));
  try {
    const runs = options.runs ?? benchmark("browsers").runs;
    for (let run = 0; run < runs; run++) {
      for (const outcome of outcomes) {
        const { browser, isolated, simd } = outcome.setting;
        const contestant = await openInBrowser({
          name: browser,
          program: programs[browser],
          url: servers.get(isolated)?.url ?? "",
          peer: "quire",
          model: model.path,
          options: { ...options.engine, backend: "wasm", simd },
        });
        try {
          const facts = /** @type {import("./machine.mjs").BackendFacts} */ (contestant.about);
          const place = isolated ? "isolated" : "not isolated";
          outcome.title = `${contestant.browser}, ${place}: ${backendText(facts)}`;
          const ask = (/** @type {readonly string[]} */ prompts) =>
            contestant.run({ prompts, maxTokens: MAX_TOKENS, stallMs: STALL_MS });
          const one = await ask(CASES.one);
          const eight = await ask(CASES.eight);
          outcome.one.push(decodeRate(one));
          outcome.eight.push(totalRate(eight));
          outcome.tokens.push(JSON.stringify([...one, ...eight].map(({ tokens }) => tokens)));
          say(`run ${run + 1}: ${outcome.title}: ${digits(decodeRate(one))} tokens/s`);
        } finally {
          await contestant.close();
        }
      }
    }
  } finally {
    for (const server of servers.values()) await server.close();
  }
  const expected = outcomes[0]?.tokens[0];
  const differing = outcomes.filter(({ tokens }) => tokens.some((each) => each !== expected));
  const env = describeEnvironment({ model });
  const results = outcomes.flatMap(({ title, one, eight }) => {
    const common = { name: "browsers", backend: "wasm", unit: "tokens/s", part: title };
    return [
      { ...common, batch: 1, ...summarize(one) },
      { ...common, batch: 8, ...summarize(eight) },
    ];
  });
  const table = outcomes.map(({ title, one, eight, tokens }) => [
    title,
    digits(summarize(one).median),
    digits(summarize(eight).median),
    tokens.every((each) => each === expected) ? "the same" : "DIFFERENT",
  ]);
  const lines = [
    ...environmentLines(env),
    "",
    ...alignTable([
      ["", "one chat, decode, tokens/s", "8 chats in all, tokens/s", "tokens"],
      ...table,
    ]),
    differing.length === 0
      ? "All settings made the same tokens."
      : `${differing.length} of ${outcomes.length} settings made other tokens.`,
  ];
  return { env, results, lines };
}
