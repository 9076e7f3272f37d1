import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { ensureBrowser } from "../lib/browsers.mjs";
import { ensureLibrary } from "../lib/build.mjs";
import { ensureDefaultModel } from "../lib/model.mjs";
import { ensureFolderPackages } from "../lib/packages.mjs";
import { inRoot } from "../lib/paths.mjs";
import { say } from "../lib/progress.mjs";
import { startServer } from "../lib/server.mjs";
import { benchmark } from "./benchmarks.mjs";
import { CHAT_CASES, MAX_TOKENS } from "./chats.mjs";
import { openInBrowser, openLlamaCpp } from "./contestants.mjs";
import { describeEnvironment, environmentLines } from "./machine.mjs";
import { comparisonTable, PEER_MEASURES, peerRows } from "./peerRows.mjs";
import { decodeRate, lastFirstToken, totalRate } from "./rates.mjs";
import { digits } from "./rows.mjs";

/** @typedef {import("./contestants.mjs").Contestant} Contestant */
/** @typedef {import("./contestants.mjs").ChatTimes} ChatTimes */
/** @typedef {import("./peerRows.mjs").Outcome} Outcome */

/** A runtime that gives no chat a token for so long will not go on; 2,000 tokens of prompt take a while. */
const STALL_MS = { short: 90_000, long: 300_000 };
/** Chats of the largest case: wllama gets as many slots. */
const MOST_CHATS = CHAT_CASES.eight.length;
/** `n_parallel` where nothing is said. */
const WLLAMA_SLOTS = 4;
/** Tokens that the runtimes with a flat cache hold: all chats of a case. */
const CONTEXT_TOKENS = { wllama: 4096, llamaCpp: 1024 };

/**
 * A runtime of the comparison.
 * @typedef {object} Peer
 * @property {string} name
 * @property {() => Promise<Contestant>} open
 */

/**
 * The same chats in Quire, in wllama and in native llama.cpp. Each round starts every runtime anew,
 * one after the other.
 * @param {import("./options.mjs").BenchOptions} options
 */
export async function measurePeers(options) {
  await ensureLibrary();
  await ensureFolderPackages("e2e/peers");
  const model = await ensureDefaultModel();
  const program = await ensureBrowser("chromium");
  const server = await startServer({
    folders: {
      "/": inRoot("e2e/peers"),
      "/dist/": inRoot("dist"),
      "/wllama/": inRoot("e2e/peers/node_modules/@wllama/wllama/esm"),
    },
  });
  try {
    const inChromium = (/** @type {"quire" | "wllama"} */ peer, /** @type {object} */ given) =>
      openInBrowser({
        name: "chromium",
        program,
        url: server.url,
        peer,
        model: model.path,
        options: { ...given },
      });
    const openWllama = (/** @type {number} */ threads, slots = MOST_CHATS) =>
      inChromium("wllama", {
        n_threads: threads,
        n_ctx: CONTEXT_TOKENS.wllama,
        n_parallel: slots,
      });
    const threads = options.engine.threads ?? Math.min(cpus().length, 8);
    const wllamaThreads = await bestThreads(openWllama, threads);
    /** @type {readonly Peer[]} */
    const peers = [
      { name: "quire", open: () => inChromium("quire", { backend: "wasm", ...options.engine }) },
      { name: `wllama ${versionOf("@wllama/wllama")}`, open: () => openWllama(wllamaThreads.best) },
      {
        name: `llama.cpp (node-llama-cpp ${versionOf("node-llama-cpp")})`,
        open: () =>
          openLlamaCpp({ modelPath: model.path, threads, contextSize: CONTEXT_TOKENS.llamaCpp }),
      },
    ];
    /** @type {Map<string, Outcome>} */
    const outcomes = new Map(peers.map(({ name }) => [name, newOutcome()]));
    const runs = options.runs ?? benchmark("peers").runs;
    let browser = "";
    for (let run = 0; run < runs; run++) {
      for (const { name, open } of peers) {
        say(`run ${run + 1}: ${name}`);
        const outcome = /** @type {Outcome} */ (outcomes.get(name));
        browser = (await measureOne(open, outcome)) ?? browser;
      }
    }
    const fewSlots = await tryFewSlots(() => openWllama(wllamaThreads.best, WLLAMA_SLOTS));
    const runtimes = Object.fromEntries([...outcomes].map(([name, { about }]) => [name, about]));
    const env = { ...describeEnvironment({ browser, model }), runtimes };
    const lines = [
      ...environmentLines(env),
      ...Object.entries(runtimes).map(([name, about]) => `${name}: ${JSON.stringify(about)}`),
      `wllama, one chat, tokens/s by threads: ${wllamaThreads.text}`,
      `wllama with its default of ${WLLAMA_SLOTS} slots, ${MOST_CHATS} chats: ${fewSlots}`,
      "",
      ...comparisonTable(outcomes, "quire"),
      "",
      ...promptCheck(outcomes),
    ];
    return { env, results: peerRows(outcomes), lines };
  } finally {
    await server.close();
  }
}

/** @returns {Outcome} */
function newOutcome() {
  return { about: {}, values: new Map(), notes: new Map(), promptTokens: new Map() };
}

/**
 * Starts a runtime, measures every case once and ends it.
 * @param {() => Promise<Contestant>} open
 * @param {Outcome} outcome
 * @returns {Promise<string | null>} its browser
 */
async function measureOne(open, outcome) {
  const contestant = await open();
  try {
    outcome.about = contestant.about;
    add(outcome, "load", contestant.loadMs);
    await measureCases(contestant, outcome);
    return contestant.browser;
  } finally {
    await contestant.close();
  }
}

/**
 * Every case once, up to one that hangs: after that a runtime is of no more use.
 * @param {Contestant} contestant
 * @param {Outcome} outcome
 */
async function measureCases(contestant, outcome) {
  const { one, four, shared, eight } = CHAT_CASES;
  const chat = await runCase(contestant, outcome, "one", one);
  if (chat === undefined) return;
  add(outcome, "one", decodeRate(chat));
  const chats = await runCase(contestant, outcome, "four", four);
  if (chats === undefined) return;
  add(outcome, "four", totalRate(chats));
  add(outcome, "fourDecode", decodeRate(chats));
  const together = await runCase(contestant, outcome, "shared", shared, 1);
  if (together === undefined) return;
  add(outcome, "shared", lastFirstToken(together));
  const many = await runCase(contestant, outcome, "eight", eight);
  if (many === undefined) return;
  add(outcome, "eight", totalRate(many));
  add(outcome, "eightDecode", decodeRate(many));
}

/** @param {Outcome} outcome @param {import("./peerRows.mjs").Measure} measure @param {number} value */
function add({ values }, measure, value) {
  values.set(measure, [...(values.get(measure) ?? []), value]);
  const { text, unit } = PEER_MEASURES[measure];
  say(`  ${text}: ${digits(value)} ${unit}`);
}

/**
 * @param {Contestant} contestant
 * @param {Outcome} outcome
 * @param {keyof typeof CHAT_CASES} name
 * @param {readonly string[]} prompts
 * @param {number} [maxTokens]
 * @returns {Promise<readonly ChatTimes[] | undefined>} undefined where not all chats ended
 */
async function runCase(contestant, outcome, name, prompts, maxTokens = MAX_TOKENS) {
  const stallMs = prompts === CHAT_CASES.shared ? STALL_MS.long : STALL_MS.short;
  const chats = await contestant.run({ prompts, maxTokens, stallMs });
  const finished = chats.filter((chat) => chat.finished);
  if (finished.length < chats.length) {
    const note = `hangs: ${finished.length} of ${chats.length} chats ended`;
    outcome.notes.set(name, note);
    say(`  ${name}: ${note}`);
    return undefined;
  }
  outcome.promptTokens.set(
    name,
    chats.map(({ promptTokens }) => promptTokens),
  );
  for (const { completionTokens } of chats) {
    if (completionTokens === maxTokens) continue;
    throw new Error(`A chat of ${name} got ${completionTokens} tokens instead of ${maxTokens}.`);
  }
  return chats;
}

/**
 * One chat each with one thread and with all, twice in turn.
 * @param {(threads: number) => Promise<Contestant>} open
 * @param {number} most
 */
async function bestThreads(open, most) {
  const rates = new Map([...new Set([1, most])].map((threads) => [threads, 0]));
  for (let run = 0; run < 2; run++) {
    for (const threads of rates.keys()) {
      const contestant = await open(threads);
      try {
        const [chat] = await contestant.run({
          prompts: CHAT_CASES.one,
          maxTokens: MAX_TOKENS / 2,
          stallMs: STALL_MS.short,
        });
        const rate = chat?.finished ? decodeRate([chat]) : 0;
        rates.set(threads, Math.max(rate, rates.get(threads) ?? 0));
      } finally {
        await contestant.close();
      }
    }
  }
  const [best = 1] = [...rates].sort(([, a], [, b]) => b - a).map(([threads]) => threads);
  const text = [...rates].map(([threads, rate]) => `${threads}: ${digits(rate)}`).join(", ");
  return { best, text };
}

/**
 * What becomes of more requests than wllama has slots.
 * @param {() => Promise<Contestant>} open
 */
async function tryFewSlots(open) {
  const contestant = await open();
  try {
    const chats = await contestant.run({
      prompts: CHAT_CASES.eight,
      maxTokens: MAX_TOKENS,
      stallMs: STALL_MS.short,
    });
    const finished = chats.filter((chat) => chat.finished);
    if (finished.length < chats.length) {
      return `hangs: ${finished.length} of ${chats.length} chats ended`;
    }
    return `all ended, ${digits(totalRate(chats))} tokens/s in all`;
  } finally {
    await contestant.close();
  }
}

/** The prompts must be the same tokens everywhere. @param {ReadonlyMap<string, Outcome>} outcomes */
function promptCheck(outcomes) {
  const [first, ...others] = [...outcomes];
  if (first === undefined) return [];
  const [, { promptTokens }] = first;
  const lines = [...promptTokens].map(
    ([name, counts]) => `prompt tokens, ${name}: ${counts.join(", ")}`,
  );
  for (const [name, other] of others) {
    for (const [which, counts] of other.promptTokens) {
      const wanted = promptTokens.get(which)?.join(", ");
      if (counts.join(", ") === wanted) continue;
      lines.push(`NOT THE SAME in ${name}, ${which}: ${counts.join(", ")}`);
    }
  }
  return lines;
}

/** @param {string} name of a package of e2e/peers */
function versionOf(name) {
  const file = inRoot(`e2e/peers/node_modules/${name}/package.json`);
  return JSON.parse(readFileSync(file, "utf8")).version;
}
