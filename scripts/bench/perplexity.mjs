import { readFileSync } from "node:fs";
import { inRoot } from "../lib/paths.mjs";

/**
 * What llama.cpp says of the text, made by e2e/oracle/perplexity.mjs.
 * @typedef {object} PerplexityOracle
 * @property {number} windowTokens
 * @property {number} numTokens of the whole text
 * @property {readonly number[]} windows for each, the sum of -ln p of its tokens from the second on
 */

/** @returns {PerplexityOracle} */
export function readOracle() {
  return JSON.parse(readFileSync(inRoot("e2e/fixtures/perplexity-oracle.json"), "utf8"));
}

/**
 * llama.cpp's perplexity of the text's first windows.
 * @param {PerplexityOracle} oracle
 * @param {number} numWindows
 */
export function expectedPerplexity({ windowTokens, numTokens, windows }, numWindows) {
  const taken = windows.slice(0, numWindows);
  // The first token of a window is judged by nobody.
  const numJudged = Math.min(numTokens, taken.length * windowTokens) - taken.length;
  const sum = taken.reduce((total, value) => total + value, 0);
  return { numJudged, perplexity: Math.exp(sum / numJudged) };
}

/**
 * Our perplexity beside llama.cpp's.
 * @param {readonly import("./rows.mjs").Row[]} rows
 * @param {number} numWindows
 * @param {PerplexityOracle} oracle
 * @returns {string[]}
 */
export function perplexityLines(rows, numWindows, oracle = readOracle()) {
  return rows.flatMap(({ name, median }) => {
    if (name !== "perplexity" || median === null) return [];
    const { numJudged, perplexity } = expectedPerplexity(oracle, numWindows);
    const percent = 100 * (median / perplexity - 1);
    return [
      `${numJudged} tokens judged: perplexity ${median.toFixed(4)}, llama.cpp's F32 twin ` +
        `${perplexity.toFixed(4)}: ${percent < 0 ? "" : "+"}${percent.toFixed(3)} %`,
    ];
  });
}
