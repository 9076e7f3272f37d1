// Runs in the headless browser of the lab: the built library under requests that arrive at given
// times, through its public API alone.

import { dispatch } from "./policies.js";
import { openRangeSource } from "./rangeSource.js";

/**
 * A request. Its prompt is cut from the text that the page was opened with.
 * @typedef {object} ArrivingRequest
 * @property {number} arrivalMs
 * @property {number} textStart first token of the prompt in the text
 * @property {number} promptTokens
 * @property {number} outputTokens generated, whatever they are
 */

/**
 * How a request went. Times are in ms on the clock of the arrivals.
 * @typedef {object} ServedRequest
 * @property {number} sentMs when the policy gave it to the engine
 * @property {readonly number[]} tokenMs when each token came
 * @property {number} cachedTokens of its prompt
 */

/** @typedef {{ library: string, model: Parameters<typeof openRangeSource>[0], text: string }} LabJob */

/** @type {import("../../src/client/types.ts").QuireEngine | undefined} */
let engine;
/** @type {readonly number[]} */
let text = [];

const lab = {
  /** Loads the model. @param {LabJob} job */
  async open(job) {
    /** @type {typeof import("../../src/index.ts")} */
    const { createEngine } = await import(job.library);
    // By name: what is measured must not depend on the adapters of the machine.
    engine = await createEngine({ model: openRangeSource(job.model), backend: "wasm" });
    text = await engine.tokenize(job.text);
    const { backend, precision, threads, simd } = engine;
    return { textTokens: text.length, facts: { backend, precision, threads, simd } };
  },
  /**
   * Serves requests that arrive from now on.
   * @param {import("./policies.js").Policy} policy
   * @param {readonly ArrivingRequest[]} requests in order of arrival
   * @returns {Promise<ServedRequest[]>}
   */
  async serve(policy, requests) {
    const start = performance.now();
    const now = () => performance.now() - start;
    /** @type {ServedRequest[]} */
    const served = [];
    await dispatch(
      policy,
      requests.map(({ arrivalMs }) => arrivalMs),
      async (index) => {
        const request = requests[index];
        if (request === undefined) throw new Error(`There is no request ${index}.`);
        served[index] = await generate(request, now);
      },
      { now, until: (time) => waitUntil(time, now) },
    );
    return served;
  },
  async close() {
    await engine?.dispose();
  },
};
Object.assign(globalThis, { lab });

/** @typedef {typeof lab} LabPage */

/**
 * @param {ArrivingRequest} request
 * @param {() => number} now
 * @returns {Promise<ServedRequest>}
 */
async function generate({ textStart, promptTokens, outputTokens }, now) {
  if (engine === undefined) throw new Error("The engine is not open.");
  const prompt = text.slice(textStart, textStart + promptTokens);
  const sentMs = now();
  const stream = await engine.completions.create({
    prompt,
    max_tokens: outputTokens,
    ignore_eos: true,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
    return_token_ids: true,
  });
  /** @type {number[]} */
  const tokenMs = [];
  let cachedTokens = 0;
  for await (const { choices, usage } of stream) {
    const count = choices[0]?.token_ids?.length ?? 0;
    for (let i = 0; i < count; i++) tokenMs.push(now());
    cachedTokens = usage?.prompt_tokens_details.cached_tokens ?? cachedTokens;
  }
  if (prompt.length !== promptTokens || tokenMs.length !== outputTokens) {
    throw new Error(
      `A request for ${promptTokens} + ${outputTokens} tokens had ${prompt.length} + ${tokenMs.length}.`,
    );
  }
  return { sentMs, tokenMs, cachedTokens };
}

/** Timers may come a little early. @param {number} time @param {() => number} now */
async function waitUntil(time, now) {
  for (let left = time - now(); left > 0; left = time - now()) {
    await new Promise((done) => setTimeout(done, left));
  }
}
