// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file Computes e2e/fixtures/perplexity-oracle.json: how well llama.cpp expects the tokens of perplexity.txt. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { evaluate, withModel } from "./llama.mjs";
import { MODEL_FILE, writeSmolLm2Twin } from "./smollm2Twin.mjs";

/** Tokens that see each other. */
const WINDOW_TOKENS = 512;
/** Rows whose logits are held at once: node-llama-cpp gives them as maps of the whole vocabulary. */
const ROWS_AT_ONCE = 32;

const { twinPath, modelSha256 } = await writeSmolLm2Twin();
const text = readFileSync(new URL("../fixtures/perplexity.txt", import.meta.url), "utf8");

const result = await withModel(twinPath, WINDOW_TOKENS, async (model, sequence) => {
  const tokens = [...model.tokenize(text, true)];
  const windows = [];
  for (let start = 0; start < tokens.length; start += WINDOW_TOKENS) {
    const window = tokens.slice(start, start + WINDOW_TOKENS);
    await sequence.clearHistory();
    windows.push(await negativeLogLikelihood(sequence, window));
    const perplexity = Math.exp(windows.at(-1) / (window.length - 1));
    console.log(`tokens ${start} to ${start + window.length}: perplexity ${perplexity.toFixed(4)}`);
  }
  return { tokens, windows };
});

const numScored = result.tokens.length - result.windows.length;
const total = result.windows.reduce((sum, value) => sum + value, 0);
const output = {
  oracle: "node-llama-cpp 3.22.1, F32 twin, F32 KV",
  model: MODEL_FILE,
  modelSha256,
  windowTokens: WINDOW_TOKENS,
  numTokens: result.tokens.length,
  // of the ids as text, separated by commas
  tokensSha256: createHash("sha256").update(result.tokens.join()).digest("hex"),
  perplexity: Math.exp(total / numScored),
  // for each window: the sum of -ln p of its tokens from the second on
  windows: result.windows,
};
writeFileSync(
  new URL("../fixtures/perplexity-oracle.json", import.meta.url),
  `${JSON.stringify(output, null, 1)}\n`,
);
console.log(`${numScored} tokens: perplexity ${output.perplexity}`);
process.exit(0);

/** Sum of -ln p over the window's tokens from the second on, each after those before it. */
async function negativeLogLikelihood(sequence, window) {
  let sum = 0;
  for (let start = 0; start < window.length - 1; start += ROWS_AT_ONCE) {
    const rows = window.slice(start, Math.min(start + ROWS_AT_ONCE, window.length - 1));
    const logits = await evaluate(sequence, rows, new Set(rows.keys()));
    for (const i of rows.keys()) sum -= logprob(logits.get(i), window[start + i + 1]);
  }
  return sum;
}

function logprob(logits, token) {
  const best = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const mass = logits.reduce((sum, logit) => sum + Math.exp(logit - best), 0);
  return logits[token] - best - Math.log(mass);
}
