import { throughputAtLatency } from "./latency.mjs";

/** @typedef {import("../pages/policies.js").Policy} Policy */
/** @typedef {import("./latency.mjs").Measures} Measures */

/**
 * A policy at one rate.
 * @typedef {{ system: Policy, case: string, load: number, rate: number } & Measures} Point `case`: how the rate was chosen; `load`: over serial's knee; `rate`: requests a second
 */

/** @typedef {{ system: Policy, points: readonly Point[] }} Curve at rising rates */

/** @typedef {import("../../src/lab/experiment.ts").Row} Row */
/** @typedef {import("../../src/lab/experiment.ts").Target} Target */

/**
 * The lab's names of the policies. Batches that end as a whole are what its FasterTransformer does;
 * here they run on Quire's engine.
 */
const SYSTEMS = /** @type {const} */ ({ serial: "serial", static: "ft", quire: "quire" });

/** What is told of every point. */
const MEASURES = /** @type {const} */ ([
  ["throughput", "throughput", "tokens/s"],
  ["meanNormalizedLatency", "normalized-latency-mean", "ms/token"],
  ["p50NormalizedLatency", "normalized-latency-p50", "ms/token"],
  ["p99NormalizedLatency", "normalized-latency-p99", "ms/token"],
  ["p50FirstToken", "first-token-p50", "ms"],
  ["p99FirstToken", "first-token-p99", "ms"],
]);

/**
 * Where policies are compared, over serial's knee. At the knee itself serial's queue has no steady
 * state: what its p99 comes to would depend on how many requests there are.
 */
export const COMPARED_LOAD = 0.8;

/** @param {readonly Point[]} points @returns {Row[]} */
export function pointRows(points) {
  return points.flatMap((point) =>
    MEASURES.map(([key, metric, unit]) => row(point.system, metric, point.case, point[key], unit)),
  );
}

/**
 * How Quire compares with the others: throughputs at the p99 of the normalised latency that serial
 * has at 80 % of its knee, and first tokens at that rate.
 * @param {readonly Curve[]} curves
 * @param {{ knee: number, rowGain: number, requestGain: number }} limits serial's, in requests a second; the walk's, see walk.mjs
 * @returns {{ rows: readonly Row[], notes: readonly string[] }}
 */
export function compare(curves, { knee, rowGain, requestGain }) {
  const serial = pointAt(curves, "serial");
  const found = (/** @type {Policy} */ policy) =>
    throughputAtLatency(pointsOf(curves, policy), serial.p99NormalizedLatency);
  const [ours, statics] = [found("quire"), found("static")];
  const gain = ours.throughput / serial.throughput;
  const overStatic = ours.throughput / statics.throughput;
  const firstToken = pointAt(curves, "quire").p99FirstToken / serial.p99FirstToken;
  const at = `p99-of-serial-at-${serial.case}`;
  const [rows, requests] = ["eight-rows-over-one", "requests-of-the-trace"];
  return {
    rows: [
      row("serial", "knee", "service-time", knee, "requests/s"),
      row("quire", "walk-bound", rows, rowGain, "x"),
      row("quire", "walk-bound", requests, requestGain, "x"),
      row("quire", "throughput-over-serial", at, gain, "x"),
      row("quire", "share-of-walk-bound", rows, gain / rowGain, "x", { min: 0.85 }),
      row("quire", "share-of-walk-bound", requests, gain / requestGain, "x"),
      row("quire", "throughput-over-static", at, overStatic, "x", { min: 1.3 }),
      row("quire", "first-token-p99-over-serial", serial.case, firstToken, "x", { max: 0.3 }),
    ],
    notes: [
      `Throughputs are compared at a p99 of ${serial.p99NormalizedLatency.toFixed(1)} ms/token, serial's at 80 % of its knee.`,
      ...boundNotes("quire", ours),
      ...boundNotes("static", statics),
    ],
  };
}

/** @param {Policy} policy @param {import("./latency.mjs").FoundThroughput} found */
function boundNotes(policy, { throughput, bound }) {
  if (bound === "exact") return [];
  const rate =
    bound === "least" ? "never so slow: its highest throughput" : "slower: its lowest rate";
  return [`${policy} was ${rate} counts, at ${bound} ${throughput.toFixed(1)} tokens/s.`];
}

/** @param {readonly Curve[]} curves @param {Policy} policy */
function pointsOf(curves, policy) {
  return curves.find(({ system }) => system === policy)?.points ?? [];
}

/** @param {readonly Curve[]} curves @param {Policy} policy */
function pointAt(curves, policy) {
  const point = pointsOf(curves, policy).find(({ load }) => load === COMPARED_LOAD);
  if (point === undefined) throw new Error(`${policy} was not measured at ${COMPARED_LOAD}.`);
  return point;
}

/**
 * The paper has no such experiment.
 * @param {Policy} policy
 * @param {string} metric
 * @param {string} which
 * @param {number} ours
 * @param {string} unit
 * @param {Target} [target]
 * @returns {Row}
 */
function row(policy, metric, which, ours, unit, target) {
  const system = SYSTEMS[policy];
  const common = { system, metric, case: which, paper: null, ours, unit, source: null };
  return target === undefined ? common : { ...common, target };
}
