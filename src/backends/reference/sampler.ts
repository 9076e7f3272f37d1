/**
 * @file How the next token is chosen, in float64 and in vLLM's order: logit bias, penalties, greedy
 * or temperature, min-p, top-k, top-p, random choice. Log-probabilities are of the raw logits.
 */
import type { SamplingParams } from "../../engine/sampling.ts";
import type { TokenLogprobs, TokenScore } from "../../engine/step.ts";
import { softmax } from "./kernels.ts";
import { gumbel } from "./rng.ts";

/** What a sequence's penalties need to know. */
export interface TokenCounts {
  readonly prompt: ReadonlySet<number>;
  /** Occurrences in the output. */
  readonly output: ReadonlyMap<number, number>;
}

/** The next token. `position` is the token's own: the counter of its random numbers. */
export function sample(
  logits: ArrayLike<number>,
  params: SamplingParams,
  counts: TokenCounts,
  position: number,
): number {
  const processed = penalise(Float64Array.from(logits), params, counts);
  if (params.temperature === 0) return argmax(processed);
  const scaled = processed.map((logit) => logit / params.temperature);
  const kept = keepTopP(keepTopK(keepMinP(scaled, params.minP), params.topK), params.topP);
  return argmax(kept.map((logit, token) => logit + gumbel(token, position, params.seed)));
}

/** Logit bias, then repetition, frequency and presence penalties. */
export function penalise(
  logits: Float64Array,
  params: SamplingParams,
  counts: TokenCounts,
): Float64Array {
  const penalised = logits.slice();
  for (const [token, bias] of params.logitBias) penalised[token]! += bias;
  for (const token of new Set([...counts.prompt, ...counts.output.keys()])) {
    const logit = penalised[token]!;
    const { repetitionPenalty } = params;
    penalised[token] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
  }
  for (const [token, count] of counts.output) {
    penalised[token]! -= count * params.frequencyPenalty + params.presencePenalty;
  }
  return penalised;
}

// Each filter sets the logits that it drops to minus infinity, and keeps at least the best one.

/** Keeps tokens whose probability is at least minP times the best one's. */
export function keepMinP(logits: Float64Array, minP: number): Float64Array {
  if (minP <= 0) return logits;
  const best = logits[argmax(logits)]!;
  return keepIf(logits, (logit) => Math.exp(logit - best) >= minP || logit === best);
}

/** Keeps the topK best tokens and all that tie with the last of them. */
export function keepTopK(logits: Float64Array, topK: number): Float64Array {
  if (topK <= 0 || topK >= logits.length) return logits;
  const last = logits.toSorted()[logits.length - topK]!; // ascending
  return keepIf(logits, (logit) => logit >= last);
}

/**
 * Keeps the smallest set of best tokens whose probability reaches topP, renormalised over the
 * tokens that are left, and all that tie with the last of them.
 */
export function keepTopP(logits: Float64Array, topP: number): Float64Array {
  if (topP >= 1) return logits;
  const probabilities = softmax(logits);
  const bestFirst = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  let sum = 0;
  let last = bestFirst[0]!;
  for (const token of bestFirst) {
    sum += probabilities[token]!;
    last = token;
    if (sum >= topP) break;
  }
  return keepIf(logits, (logit) => logit >= logits[last]!);
}

/** Index of the largest value, ties to the lowest. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Natural log-probabilities of the raw logits' softmax: the token's and the `count` best ones'. */
export function logprobs(logits: ArrayLike<number>, token: number, count: number): TokenLogprobs {
  const best = logits[argmax(logits)]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - best);
  const logprob = (id: number): number => logits[id]! - best - Math.log(sum);
  const bestFirst = Array.from({ length: logits.length }, (_, id) => id).sort(
    (a, b) => logits[b]! - logits[a]! || a - b,
  );
  return {
    logprob: logprob(token),
    top: bestFirst.slice(0, count).map((id) => ({ token: id, logprob: logprob(id) })),
  };
}

/** The log-probabilities of a known token, and its place in the order of the best. */
export function score(logits: ArrayLike<number>, token: number, count: number): TokenScore {
  let rank = 1;
  for (let id = 0; id < logits.length; id++) {
    const difference = logits[id]! - logits[token]!;
    if (difference > 0 || (difference === 0 && id < token)) rank += 1;
  }
  return { ...logprobs(logits, token, count), rank };
}

function keepIf(logits: Float64Array, keep: (logit: number) => boolean): Float64Array {
  return logits.map((logit) => (keep(logit) ? logit : -Infinity));
}
