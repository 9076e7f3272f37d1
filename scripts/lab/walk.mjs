import { measureInPage } from "../bench/pageBenchmarks.mjs";

/**
 * Milliseconds of the bare walk of the linear layers: every matrix of the model once.
 * @typedef {object} Walk
 * @property {number} one over one row
 * @property {number} eight over eight rows
 */

/** @typedef {{ promptTokens: number, outputTokens: number }} Lengths */

/** Rounds, of which the median counts. */
const RUNS = 3;

/**
 * Measures it in headless Chromium, as `npm run bench -- walk` does.
 * @returns {Promise<{ walk: Walk, env: import("../bench/machine.mjs").Environment }>}
 */
export async function measureWalk() {
  const { results, env } = await measureInPage({
    names: ["walk"],
    backend: "wasm",
    engine: {},
    isolated: true,
    browser: "chromium",
    runs: RUNS,
    numWindows: 1,
    json: undefined,
  });
  const over = (/** @type {number} */ rows) => {
    const median = results.find(({ batch }) => batch === rows)?.median;
    if (typeof median !== "number") throw new Error(`The walk over ${rows} rows was not measured.`);
    return median;
  };
  return { walk: { one: over(1), eight: over(8) }, env };
}

/** How many rows a second eight at once are, over one at a time. @param {Walk} walk */
export function rowGain({ one, eight }) {
  return (8 * one) / eight;
}

/**
 * How many requests a second batching allows, over one at a time: the rows of a prompt are a batch
 * in either case, so only the rows of outputs gain.
 * @param {Walk} walk
 * @param {readonly Lengths[]} requests
 */
export function requestGain(walk, requests) {
  const batched = requests.reduce(
    (sum, { promptTokens, outputTokens }) => sum + (promptTokens + outputTokens) * (walk.eight / 8),
    0,
  );
  return serialWalkMs(walk, requests) / batched;
}

/**
 * What the walk takes of requests that run one at a time.
 * @param {Walk} walk
 * @param {readonly Lengths[]} requests
 */
export function serialWalkMs({ one, eight }, requests) {
  return requests.reduce(
    (sum, { promptTokens, outputTokens }) => sum + promptTokens * (eight / 8) + outputTokens * one,
    0,
  );
}
