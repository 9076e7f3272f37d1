import type { Plan } from "../../src/backends/ops.ts";
import type { BeamSearchParams } from "../../src/engine/engineRequest.ts";
import { GREEDY, MAX_LOGPROBS } from "../../src/engine/sampling.ts";
import type { FinishReason } from "../../src/engine/sequence.ts";
import { makeStep } from "../fixtures/drivePlan.ts";

/** The likeliest tokens after a list of tokens, best first. */
export type NextTokens = (
  tokens: readonly number[],
) => Promise<readonly { readonly token: number; readonly logprob: number }[]>;

/** Answers by running all of the tokens as one prompt of its own, in one step, alone. Remembers what it was asked. */
export function nextTokensOf(plan: Plan, blockSize: number): NextTokens {
  const known = new Map<string, ReturnType<NextTokens>>();
  const blocks = Array.from({ length: plan.numBlocks }, (_, i) => i);
  const ask: NextTokens = async (tokens) => {
    const rows = {
      slot: 0,
      tokens,
      start: 0,
      blocks: blocks.slice(0, Math.ceil(tokens.length / blockSize)),
      reset: { ...GREEDY, logprobs: MAX_LOGPROBS },
      isSampled: true,
    };
    const { logprobs } = await plan.submit(makeStep(known.size, blockSize, [rows])).result;
    return logprobs[0]!.top;
  };
  return (tokens) => {
    const key = tokens.join();
    const found = known.get(key) ?? ask(tokens);
    known.set(key, found);
    return found;
  };
}

export interface PlainHypothesis {
  readonly tokens: readonly number[];
  readonly cumulativeLogprob: number;
  readonly finishReason: FinishReason;
  readonly stopToken: number | undefined;
}

export interface PlainSearchOptions extends BeamSearchParams {
  readonly maxTokens: number;
  readonly stopTokens: ReadonlySet<number>;
}

interface Path {
  readonly tokens: readonly number[]; // of the output
  readonly cumulativeLogprob: number;
}

/**
 * Beam search as the textbook has it, with Hugging Face's rules for stop tokens, length penalty and early
 * stopping: every hypothesis is a whole list of tokens and is looked at anew in each step. Best first.
 */
export async function plainBeamSearch(
  prompt: readonly number[],
  next: NextTokens,
  options: PlainSearchOptions,
): Promise<readonly PlainHypothesis[]> {
  const { width, lengthPenalty, earlyStopping, maxTokens, stopTokens } = options;
  const scoreAt = (sum: number, length: number): number => sum / length ** lengthPenalty;
  let live: readonly Path[] = [{ tokens: [], cumulativeLogprob: 0 }];
  let ended: (PlainHypothesis & { readonly score: number })[] = [];
  for (let length = 1; ; length++) {
    const all: (Path & { readonly parent: number; readonly token: number })[] = [];
    for (const [parent, { tokens, cumulativeLogprob }] of live.entries()) {
      for (const { token, logprob } of await next([...prompt, ...tokens])) {
        const sum = cumulativeLogprob + logprob;
        all.push({ parent, token, tokens: [...tokens, token], cumulativeLogprob: sum });
      }
    }
    all.sort(
      (a, b) =>
        b.cumulativeLogprob - a.cumulativeLogprob || a.parent - b.parent || a.token - b.token,
    );
    for (const { token, tokens, cumulativeLogprob } of all.slice(0, width)) {
      if (!stopTokens.has(token)) continue;
      const score = scoreAt(cumulativeLogprob, length);
      const rest = { finishReason: "stop", stopToken: token, score } as const;
      ended.push({ tokens: tokens.slice(0, -1), cumulativeLogprob, ...rest });
    }
    live = all.filter(({ token }) => !stopTokens.has(token)).slice(0, width);
    if (length === maxTokens) {
      for (const { tokens, cumulativeLogprob } of live) {
        const score = scoreAt(cumulativeLogprob, length);
        const rest = { finishReason: "length", stopToken: undefined, score } as const;
        ended.push({ tokens, cumulativeLogprob, ...rest });
      }
    }
    // Stable: of equals the earlier one stays ahead.
    ended = ended.sort((a, b) => b.score - a.score).slice(0, width);
    const isFull = ended.length === width;
    const best = live[0]?.cumulativeLogprob ?? Number.NEGATIVE_INFINITY;
    const attainable =
      earlyStopping === "never" && lengthPenalty > 0
        ? scoreAt(best, maxTokens)
        : scoreAt(best, length);
    const isSettled = isFull && (earlyStopping === true || ended.at(-1)!.score >= attainable);
    if (length < maxTokens && !isSettled) continue;
    return ended.map(({ score: _, ...hypothesis }) => hypothesis);
  }
}
