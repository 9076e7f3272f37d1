/**
 * What a request asks for, and when it arrives in a trace of one request a unit of time.
 * @typedef {object} TraceRequest
 * @property {number} arrival in units of the mean time between arrivals: 0 to the number of requests
 * @property {number} promptTokens
 * @property {number} outputTokens
 */

/**
 * The lengths of the paper's ShareGPT load (161 and 338 tokens on average, lognormal), each a twentieth,
 * so that a minute holds some hundreds of requests. Outputs stay twice as long as prompts.
 */
const PROMPTS = { mean: 161.31 / 20, cv: 1.6 };
const OUTPUTS = { mean: 337.99 / 20, cv: 1 };
/** As vLLM's benchmarks: what is shorter has no latency a token to speak of. */
const MIN_TOKENS = 4;
/** Prompt and output together, a twentieth of the paper's too; a longer pair is drawn again. */
const MAX_TOKENS = Math.floor(2048 / 20);
/** A prompt can be cut from a text that has as many tokens left. */
export const MAX_PROMPT_TOKENS = MAX_TOKENS - MIN_TOKENS;

/**
 * A Poisson process over a time in which `count` requests arrive. Given their number, the arrivals of
 * such a process are uniform and independent; with the number fixed, all seeds have the same mean
 * rate, which a sum of 50 random gaps would miss by a seventh.
 * @param {number} seed
 * @param {number} count
 * @returns {readonly TraceRequest[]} in order of arrival
 */
export function makeTrace(seed, count) {
  const random = createRandom(seed);
  const arrivals = Array.from({ length: count }, () => count * random()).sort((a, b) => a - b);
  return arrivals.map((arrival) => ({ arrival, ...drawLengths(random) }));
}

/** @param {() => number} random */
function drawLengths(random) {
  for (;;) {
    const promptTokens = lognormal(random, PROMPTS);
    const outputTokens = lognormal(random, OUTPUTS);
    if (promptTokens + outputTokens <= MAX_TOKENS) return { promptTokens, outputTokens };
  }
}

/**
 * A lognormal's sigma^2 is ln(1 + cv^2) and its mu is ln(mean) - sigma^2 / 2; the normal is Box and
 * Muller's.
 * @param {() => number} random
 * @param {{ mean: number, cv: number }} lengths
 */
function lognormal(random, { mean, cv }) {
  const variance = Math.log(1 + cv * cv);
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const value = Math.exp(Math.log(mean) - variance / 2 + Math.sqrt(variance) * normal);
  return Math.max(MIN_TOKENS, Math.round(value));
}

/**
 * Uniform numbers in [0, 1): a Weyl sequence through MurmurHash3's finaliser.
 * @param {number} seed
 * @returns {() => number}
 */
function createRandom(seed) {
  let state = Math.imul(seed + 1, 0x85ebca6b);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let bits = state;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
  };
}
