import { readFileSync } from "node:fs";
import { UsageError } from "./errors.mjs";
import { parseFlags } from "./flags.mjs";
import { userPath } from "./paths.mjs";

/** Widest beam search of the engine. */
const MAX_BEAMS = 10;

export const ASK_FLAGS = /** @satisfies {Record<string, import("./flags.mjs").Flag>} */ (
  /** @type {const} */ ({
    messages: { type: "string", value: "FILE", help: "JSON: a list of conversations" },
    system: { type: "string", value: "TEXT", help: "system message for the prompts" },
    "max-tokens": { type: "integer", min: 1, help: "most tokens an answer (128)" },
    temperature: { type: "number", min: 0, max: 2, help: "0 = greedy (0)" },
    "top-p": { type: "number", min: 0, above: true, max: 1, help: "nucleus sampling (1)" },
    seed: { type: "integer", min: 0, help: "conversation i uses seed + i" },
    n: { type: "integer", min: 1, max: 128, help: "answers a conversation (1)" },
    beams: {
      type: "integer",
      min: 1,
      max: MAX_BEAMS,
      help: "beam search of this width instead of sampling",
    },
    backend: { type: "choice", choices: ["auto", "webgpu", "wasm"], help: "(auto)" },
    precision: { type: "choice", choices: ["exact", "fast"], help: "(wasm: fast, webgpu: exact)" },
    kv: { type: "choice", choices: ["f16", "f32"], help: "keys and values (f16)" },
    "kv-blocks": { type: "integer", min: 1, help: "size of the KV pool in blocks" },
    "block-size": { type: "choice", choices: ["8", "16", "32"], help: "tokens a block (16)" },
    "max-sequences": { type: "integer", min: 1, max: 256, help: "most at the same time (16)" },
    threads: { type: "integer", min: 1, max: 64, help: "of WASM (the processor's, at most 8)" },
    simd: {
      type: "choice",
      choices: ["auto", "plain"],
      help: "of WASM: relaxed or SIMD128 (auto)",
    },
    isolated: {
      type: "choice",
      choices: ["on", "off"],
      help: "COOP and COEP; off: one thread (on)",
    },
    model: { type: "string", value: "FILE|URL", help: "instead of the default model" },
    browser: { type: "choice", choices: ["chromium", "firefox"], help: "(chromium)" },
    json: { type: "boolean", help: "the last line of stdout is one JSON object" },
  })
);

/**
 * @typedef {object} AskOptions
 * @property {string | undefined} model
 * @property {import("./browsers.mjs").BrowserName} browser
 * @property {boolean} isolated
 * @property {boolean} json
 * @property {AskJob["engine"]} engine
 * @property {AskJob["requests"]} requests
 */

/**
 * What the page is told to do; plain data.
 * @typedef {object} AskJob
 * @property {string} library URL of the built library
 * @property {{ url: string, name: string, byteLength: number }} model
 * @property {Omit<import("../../src/client/types.ts").EngineOptions, "model">} engine
 * @property {readonly import("../../src/client/types.ts").ChatCompletionParams[]} requests
 */

/**
 * Reads the command line of `ask`.
 * @param {readonly string[]} argv
 * @returns {AskOptions | "help"}
 */
export function parseAsk(argv) {
  const { values, positionals, help } = parseFlags(argv, ASK_FLAGS, { positionals: "prompts" });
  if (help) return "help";
  const conversations = [
    ...positionals.map((prompt) => promptMessages(values.system, prompt)),
    ...(values.messages === undefined ? [] : readConversations(values.messages)),
  ];
  if (values.system !== undefined && positionals.length === 0) {
    throw new UsageError("--system goes with positional prompts, and there is none.");
  }
  if (conversations.length === 0) {
    throw new UsageError('There is nothing to ask. Usage: npm run ask -- "prompt" [flags]');
  }
  checkThreads(values);
  checkSeed(values, conversations.length);
  return {
    model: values.model,
    browser: values.browser === "firefox" ? "firefox" : "chromium",
    isolated: values.isolated !== "off",
    json: values.json,
    engine: {
      ...readBackend(values),
      kvCacheDtype: values.kv === "f32" ? "f32" : "f16",
      blockSize: values["block-size"] === "8" ? 8 : values["block-size"] === "32" ? 32 : 16,
      ...(values["kv-blocks"] === undefined ? {} : { kvCacheBlocks: values["kv-blocks"] }),
      ...(values["max-sequences"] === undefined ? {} : { maxSequences: values["max-sequences"] }),
    },
    requests: conversations.map((messages, i) => ({
      messages: /** @type {AskJob["requests"][number]["messages"]} */ (messages),
      max_tokens: values["max-tokens"] ?? 128,
      ...readSampling(values, i),
    })),
  };
}

/**
 * Threads share memory, which a page gets only where it is isolated.
 * @param {{ threads?: number, isolated?: string }} values
 */
export function checkThreads({ threads = 1, isolated }) {
  if (threads === 1 || isolated !== "off") return;
  throw new UsageError(
    `--threads ${threads} is not supported with --isolated off, which leaves one thread. Valid: 1.`,
  );
}

/**
 * Sample j of conversation i has seed + i + j, and the engine takes whole numbers only.
 * @param {{ seed?: number, n?: number }} values
 * @param {number} count of conversations
 */
function checkSeed({ seed = 0, n = 1 }, count) {
  const most = Number.MAX_SAFE_INTEGER - (count - 1) - (n - 1);
  if (seed <= most) return;
  throw new UsageError(
    `--seed ${seed} is not supported with ${count * n} answers, which take the seeds after it. ` +
      `Valid: a whole number from 0 to ${most}.`,
  );
}

/**
 * Flags that do nothing because `auto` chose WebGPU, which only the browser knows.
 * @param {AskJob["engine"]} asked
 * @param {string} backend that was chosen
 * @returns {readonly string[]}
 */
export function unusedFlags({ precision, threads, simd }, backend) {
  if (backend !== "webgpu") return [];
  return [
    ...(precision === "fast" ? ["--precision fast"] : []),
    ...(threads === undefined ? [] : [`--threads ${threads}`]),
    ...(simd === undefined ? [] : [`--simd ${simd}`]),
  ];
}

/**
 * How the answers of conversation `i` are found.
 * @param {{ temperature: number | undefined, "top-p": number | undefined, seed: number | undefined, n: number | undefined, beams: number | undefined }} values
 * @param {number} i
 * @returns {Pick<AskJob["requests"][number], "temperature" | "top_p" | "seed" | "n" | "use_beam_search" | "beam_width">}
 */
function readSampling({ temperature = 0, "top-p": topP = 1, seed, n = 1, beams }, i) {
  const sampling = { temperature, top_p: topP, n };
  if (beams === undefined) return seed === undefined ? sampling : { ...sampling, seed: seed + i };
  if (n > beams)
    throw new UsageError(`--n ${n} is not supported with --beams ${beams}: at most ${beams}.`);
  for (const [flag, value, only] of /** @type {const} */ ([
    ["temperature", temperature, 0],
    ["top-p", topP, 1],
    ["seed", seed, undefined],
  ])) {
    if (value === only) continue;
    const valid = only === undefined ? "leave it out" : `valid: ${only}`;
    throw new UsageError(
      `--${flag} ${value} is not supported with --beams, which draws nothing: ${valid}.`,
    );
  }
  return { ...sampling, use_beam_search: true, beam_width: beams };
}

/**
 * What computes. Flags that the back end asked for does not have are refused.
 * @param {{ backend: string | undefined, precision: string | undefined, threads: number | undefined, simd: string | undefined }} values
 * @returns {Pick<AskJob["engine"], "backend" | "precision" | "threads" | "simd">}
 */
function readBackend({ backend = "auto", precision, threads, simd }) {
  if (backend === "webgpu") {
    if (precision === "fast") {
      throw new UsageError("--precision fast is not offered by the webgpu back end. Valid: exact.");
    }
    for (const [flag, value] of Object.entries({ threads, simd })) {
      if (value === undefined) continue;
      throw new UsageError(`--${flag} is not offered by the webgpu back end. Valid: auto, wasm.`);
    }
  }
  return {
    backend: backend === "webgpu" || backend === "wasm" ? backend : "auto",
    ...(precision === undefined ? {} : { precision: precision === "fast" ? "fast" : "exact" }),
    ...(threads === undefined ? {} : { threads }),
    ...(simd === undefined ? {} : { simd: simd === "plain" ? "plain" : "auto" }),
  };
}

/** @param {string | undefined} system @param {string} prompt */
function promptMessages(system, prompt) {
  const user = { role: "user", content: prompt };
  return system === undefined ? [user] : [{ role: "system", content: system }, user];
}

/**
 * Reads `--messages FILE`. What is in a message is the engine's to judge.
 * @param {string} file
 * @returns {readonly unknown[][]}
 */
function readConversations(file) {
  let value;
  try {
    value = JSON.parse(readFileSync(userPath(file), "utf8"));
  } catch (error) {
    throw new UsageError(`--messages ${file} cannot be read as JSON: ${String(error)}`);
  }
  if (!Array.isArray(value) || !value.every((conversation) => Array.isArray(conversation))) {
    throw new UsageError(
      `--messages ${file} must be a list of conversations, each a list of messages: ` +
        '[[{ "role": "user", "content": "Hello" }]].',
    );
  }
  return value;
}
