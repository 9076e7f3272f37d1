/** @typedef {import("../pages/labArrivals.js").ArrivingRequest} ArrivingRequest */
/** @typedef {import("../pages/labArrivals.js").ServedRequest} ServedRequest */

/**
 * What a policy did at one rate.
 * @typedef {object} Measures
 * @property {number} meanNormalizedLatency ms a token: from arrival to end, by output tokens, over requests
 * @property {number} p50NormalizedLatency
 * @property {number} p99NormalizedLatency
 * @property {number} p50FirstToken ms from arrival
 * @property {number} p99FirstToken
 * @property {number} throughput output tokens a second
 */

/** As the paper leaves out the first minute: the engine starts empty. */
const WARM_UP_SHARE = 0.25;

/**
 * Latencies of the requests that arrive in the last three quarters of `spanMs`, and the tokens that
 * come in that time. So a run's emptying at its end counts neither for nor against a policy: in a
 * steady state as much is under way at the end of that time as at its start, and beyond what can be
 * sustained the tokens are what the policy is capable of.
 * @param {readonly ArrivingRequest[]} requests
 * @param {readonly ServedRequest[]} served by request
 * @param {number} spanMs in which the requests arrive
 * @returns {Measures}
 */
export function measure(requests, served, spanMs) {
  const from = WARM_UP_SHARE * spanMs;
  /** @type {number[]} */
  const normalized = [];
  /** @type {number[]} */
  const firsts = [];
  let tokens = 0;
  for (const [i, { arrivalMs, outputTokens }] of requests.entries()) {
    const tokenMs = served[i]?.tokenMs ?? [];
    tokens += tokenMs.filter((time) => time >= from && time < spanMs).length;
    const [first, last] = [tokenMs[0], tokenMs.at(-1)];
    if (first === undefined || last === undefined) throw new Error(`Request ${i} got no token.`);
    if (arrivalMs < from) continue;
    normalized.push((last - arrivalMs) / outputTokens);
    firsts.push(first - arrivalMs);
  }
  return {
    meanNormalizedLatency: normalized.reduce((sum, each) => sum + each, 0) / normalized.length,
    p50NormalizedLatency: percentile(normalized, 50),
    p99NormalizedLatency: percentile(normalized, 99),
    p50FirstToken: percentile(firsts, 50),
    p99FirstToken: percentile(firsts, 99),
    throughput: (1000 * tokens) / (spanMs - from),
  };
}

/**
 * Interpolated between the two nearest of the sorted values: percentile 0 is the least, 100 the most.
 * @param {readonly number[]} values at least one
 * @param {number} percent
 */
export function percentile(values, percent) {
  const sorted = [...values].sort((a, b) => a - b);
  const place = (percent / 100) * (sorted.length - 1);
  const at = (/** @type {number} */ index) => /** @type {number} */ (sorted[index]);
  const below = Math.floor(place);
  const above = Math.ceil(place);
  return at(below) + (place - below) * (at(above) - at(below));
}

/**
 * @typedef {object} FoundThroughput
 * @property {number} throughput
 * @property {"exact" | "least" | "most"} bound what was found: it, or the least or the most that it can be
 */

/**
 * The throughput at which a policy's p99 of the normalised latency comes to `latency`: on the line
 * between the two points where it first gets longer, over the latency's logarithm. Where it is never
 * longer, the highest throughput is the least that it can be; where it is longer from the start, that
 * of the lowest rate is the most.
 * @param {readonly Pick<Measures, "p99NormalizedLatency" | "throughput">[]} points at rising rates, at least one
 * @param {number} latency ms a token
 * @returns {FoundThroughput}
 */
export function throughputAtLatency(points, latency) {
  if (points.length === 0) throw new RangeError("A curve has at least one point.");
  const beyond = points.findIndex((point) => point.p99NormalizedLatency > latency);
  const [below, above] = [points[beyond - 1], points[beyond]];
  if (above === undefined) {
    return { throughput: Math.max(...points.map((point) => point.throughput)), bound: "least" };
  }
  if (below === undefined) return { throughput: above.throughput, bound: "most" };
  const part =
    Math.log(latency / below.p99NormalizedLatency) /
    Math.log(above.p99NormalizedLatency / below.p99NormalizedLatency);
  const throughput = below.throughput + part * (above.throughput - below.throughput);
  return { throughput, bound: "exact" };
}
