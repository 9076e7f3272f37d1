import { summarize } from "../lib/statistics.mjs";
import { alignTable, digits } from "./rows.mjs";

/**
 * What is measured of each runtime.
 * @typedef {keyof typeof PEER_MEASURES} Measure
 */
export const PEER_MEASURES = /** @type {const} */ ({
  one: { text: "one chat, decode", unit: "tokens/s", batch: 1, from: "one" },
  four: { text: "4 chats in all", unit: "tokens/s", batch: 4, from: "four" },
  fourDecode: { text: "4 chats in all, decode", unit: "tokens/s", batch: 4, from: "four" },
  eight: { text: "8 chats in all", unit: "tokens/s", batch: 8, from: "eight" },
  eightDecode: { text: "8 chats in all, decode", unit: "tokens/s", batch: 8, from: "eight" },
  shared: {
    text: "4 chats over one 500-token system prompt, last first token",
    unit: "ms",
    batch: 4,
    from: "shared",
  },
  load: { text: "load from local file to first token", unit: "ms", batch: 1, from: "load" },
});

/**
 * What came of a runtime in all runs.
 * @typedef {object} Outcome
 * @property {Record<string, unknown>} about
 * @property {Map<Measure, readonly number[]>} values
 * @property {Map<string, string>} notes by the case: why it has no values
 * @property {Map<string, readonly number[]>} promptTokens by the case
 */

const MEASURES = /** @type {readonly Measure[]} */ (Object.keys(PEER_MEASURES));

/**
 * @param {ReadonlyMap<string, Outcome>} outcomes by the runtime's name
 * @returns {import("./rows.mjs").Row[]}
 */
export function peerRows(outcomes) {
  return [...outcomes].flatMap(([backend, outcome]) =>
    MEASURES.map((measure) => {
      const { text, unit, batch, from } = PEER_MEASURES[measure];
      const common = { name: "peers", backend, batch, part: text, unit };
      const values = outcome.values.get(measure) ?? [];
      if (values.length > 0) return { ...common, ...summarize(values) };
      const note = outcome.notes.get(from) ?? "not measured";
      return { ...common, median: null, min: null, max: null, runs: 0, note };
    }),
  );
}

/**
 * Medians side by side, and how many times the others' is that of `ours`.
 * @param {ReadonlyMap<string, Outcome>} outcomes
 * @param {string} ours
 */
export function comparisonTable(outcomes, ours) {
  const others = [...outcomes.keys()].filter((name) => name !== ours);
  const rows = peerRows(outcomes);
  const find = (/** @type {string} */ name, /** @type {string} */ part) =>
    rows.find((row) => row.backend === name && row.part === part);
  const lines = MEASURES.map((measure) => {
    const { text, unit } = PEER_MEASURES[measure];
    const own = find(ours, text)?.median ?? null;
    return [
      `${text}, ${unit}`,
      own === null ? "-" : digits(own),
      ...others.flatMap((name) => {
        const row = find(name, text);
        const median = row?.median ?? null;
        if (median === null) return [row?.note ?? "-", "-"];
        return [digits(median), own === null ? "-" : `${(own / median).toFixed(2)} x`];
      }),
    ];
  });
  return alignTable([["", ours, ...others.flatMap((name) => [name, `${ours} is`])], ...lines]);
}
