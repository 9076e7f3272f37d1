import { environmentLines } from "../bench/machine.mjs";
import { digits } from "../bench/rows.mjs";
import { BATCH_LIMITS } from "../pages/policies.js";
import { MAX_PROMPT_TOKENS, makeTrace } from "./arrivals.mjs";
import { COMPARED_LOAD, compare, pointRows } from "./browserRows.mjs";
import { inLabPage } from "./labPage.mjs";
import { measure } from "./latency.mjs";
import { measureWalk, requestGain, rowGain, serialWalkMs } from "./walk.mjs";

/** @typedef {import("../pages/labArrivals.js").ArrivingRequest} ArrivingRequest */
/** @typedef {import("../pages/labArrivals.js").ServedRequest} ServedRequest */
/** @typedef {import("../pages/policies.js").Policy} Policy */
/** @typedef {import("./arrivals.mjs").TraceRequest} TraceRequest */
/** @typedef {import("./browserRows.mjs").Curve} Curve */
/** @typedef {import("./browserRows.mjs").Point} Point */
/** @typedef {import("../../src/lab/plot.ts").Plot} Plot */
/** @typedef {import("./labPage.mjs").LabPage} LabPage */

/**
 * What the experiment comes to.
 * @typedef {{ id: "E20", title: string, seed: number, curves: readonly Curve[] } & import("../../src/lab/experiment.ts").ExperimentResult} BrowserExperiment
 */

/**
 * Serves the first requests of the trace.
 * @typedef {(policy: Policy, count: number, meanGapMs: number) => Promise<{ requests: readonly ArrivingRequest[], served: readonly ServedRequest[] }>} Serve
 */

/**
 * Requests of a point. On two cores serial takes 0.16 s for one, so that its 80 % take 11 s and all
 * points a minute. The p99 of the 42 that count is close to the worst of them: in a simulation, ratios
 * of throughputs differ by a seventh from seed to seed. A number to quote wants several.
 */
const NUM_REQUESTS = 56;
/** Served before anything is measured: engines compile what they run often, for one chat and for many. */
const WARM_UP = 8;
/** Served one after the other for serial's service time. */
const NUM_TIMED = 16;
/** Most of the prompts that may be in the prefix cache: a first word or two that others start with. */
const MAX_CACHED_SHARE = 0.2;

/**
 * What is measured, in this order: rates that are compared come one right after the other, so that a
 * machine that gets slower does so for every policy. `ofKnee`: over the rate that serial can serve.
 * `ofWalk`: over that and what the bare walk allows.
 * @type {readonly { policy: Policy, ofKnee?: number, ofWalk?: number }[]}
 */
const POINTS = [
  { policy: "serial", ofKnee: COMPARED_LOAD },
  { policy: "quire", ofKnee: COMPARED_LOAD },
  { policy: "static", ofWalk: 0.5 },
  { policy: "serial", ofKnee: 1.2 },
  { policy: "quire", ofWalk: 0.85 },
  { policy: "static", ofWalk: 0.8 },
  { policy: "quire", ofWalk: 1.1 },
  { policy: "quire", ofWalk: 1.35 },
];

/**
 * The real engine in headless Chromium (default model, WASM) while requests arrive at random: one at a
 * time (`serial`), in batches that end as a whole (`static`), and all as they come (`quire`). Every
 * policy and rate has the same requests, but for the text of their prompts: nobody's may be cached.
 * @param {{ seed: number, log: (line: string) => void }} options
 * @returns {Promise<BrowserExperiment>}
 */
export async function runBrowserExperiment({ seed, log }) {
  const { walk, env } = await measureWalk();
  const trace = makeTrace(seed, NUM_REQUESTS);
  const limits = { rowGain: rowGain(walk), requestGain: requestGain(walk, trace) };
  const { knee, points } = await inLabPage(async (lab, textTokens) => {
    const serve = createServe(lab, trace, textTokens);
    await serve("static", WARM_UP, 0);
    const timed = await serve("serial", NUM_TIMED, 0);
    const share = serialWalkMs(walk, timed.requests) / serialWalkMs(walk, trace);
    const serviceMs = endOf(timed.served) / share / NUM_REQUESTS;
    log(`serial takes ${digits(serviceMs)} ms a request`);
    const knee = 1000 / serviceMs;
    /** @type {Point[]} */
    const points = [];
    for (const { policy, ofKnee, ofWalk = 0 } of POINTS) {
      const load = ofKnee ?? ofWalk * limits.requestGain;
      const gapMs = serviceMs / load;
      const { requests, served } = await serve(policy, NUM_REQUESTS, gapMs);
      const measures = measure(requests, served, NUM_REQUESTS * gapMs);
      const which = ofKnee === undefined ? `walk-${ofWalk}` : `knee-${ofKnee}`;
      const point = { system: policy, case: which, load, rate: load * knee, ...measures };
      points.push(point);
      log(pointText(point));
    }
    return { knee, points };
  });
  const curves = /** @type {const} */ (["serial", "static", "quire"]).map((system) => ({
    system,
    points: points.filter((point) => point.system === system).sort((a, b) => a.load - b.load),
  }));
  const { rows, notes } = compare(curves, { knee, ...limits });
  return {
    id: "E20",
    title: "The real engine in a browser under Poisson arrivals",
    seed,
    rows: [...pointRows(points), ...rows],
    notes: [
      ...environmentLines(env),
      `${NUM_REQUESTS} requests a rate; ft: static batches of up to ${BATCH_LIMITS.static} on Quire's engine.`,
      ...notes,
    ],
    plots: [plotOf(curves)],
    curves,
  };
}

/** @param {readonly Curve[]} curves @returns {Plot} */
function plotOf(curves) {
  return {
    name: "e20-browser",
    title: "SmolLM2-135M on WASM in Chromium, Poisson arrivals",
    xLabel: "requests/s",
    yLabel: "p99 of the normalised latency, ms/token",
    kind: {
      type: "lines",
      series: curves.map(({ system, points }) => ({
        name: system,
        points: points.map(({ rate, p99NormalizedLatency }) => [rate, p99NormalizedLatency]),
      })),
    },
  };
}

/**
 * No two prompts of an experiment start at the same place of the text.
 * @param {LabPage} lab
 * @param {readonly TraceRequest[]} trace
 * @param {number} textTokens
 * @returns {Serve}
 */
function createServe(lab, trace, textTokens) {
  const total = WARM_UP + NUM_TIMED + POINTS.length * NUM_REQUESTS;
  const stride = Math.floor((textTokens - MAX_PROMPT_TOKENS) / total);
  let next = 0;
  return async (policy, count, meanGapMs) => {
    const requests = trace.slice(0, count).map(({ arrival, promptTokens, outputTokens }) => ({
      arrivalMs: arrival * meanGapMs,
      textStart: stride * next++,
      promptTokens,
      outputTokens,
    }));
    const served = await lab.serve(policy, requests);
    const sum = (/** @type {readonly number[]} */ values) => values.reduce((a, b) => a + b, 0);
    const cached = sum(served.map(({ cachedTokens }) => cachedTokens));
    const prompts = sum(requests.map(({ promptTokens }) => promptTokens));
    if (stride < 1 || cached > MAX_CACHED_SHARE * prompts) {
      throw new Error(`${cached} of ${prompts} prompt tokens were cached: nothing is measured so.`);
    }
    return { requests, served };
  };
}

/** When the last token came, in ms. @param {readonly ServedRequest[]} served */
function endOf(served) {
  return Math.max(...served.map(({ tokenMs }) => tokenMs.at(-1) ?? 0));
}

/** @param {Point} point */
function pointText({ system, load, rate, ...point }) {
  return (
    `${system} at ${load.toFixed(2)} of serial's knee (${rate.toFixed(2)} requests/s): ` +
    `${point.throughput.toFixed(1)} tokens/s, p99 ${point.p99NormalizedLatency.toFixed(1)} ms/token, ` +
    `first token p99 ${point.p99FirstToken.toFixed(0)} ms`
  );
}
