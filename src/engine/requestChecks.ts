import { QuireError } from "../errors.ts";
import type { EngineRequest, RequestLimits } from "./engineRequest.ts";
import { GREEDY, MAX_BEAM_WIDTH, usesPenalties } from "./sampling.ts";

/** Throws `invalid-argument`, `context-overflow`, `kv-pool-too-small`. */
export function checkRequest(request: EngineRequest, limits: RequestLimits): void {
  checkPrompt(request);
  checkCount("n", request.n);
  if (request.maxTokens !== 0 || request.promptLogprobs === undefined) {
    checkCount("maxTokens", request.maxTokens);
  }
  checkChoices(request, limits);
  checkSchedulingFields(request);
  checkSize(request, limits);
}

function checkPrompt({ promptTokens }: EngineRequest): void {
  if (promptTokens.length === 0) {
    throw new QuireError("invalid-argument", "The prompt is empty; give at least one token.");
  }
  for (const [index, token] of promptTokens.entries()) {
    if (!Number.isInteger(token) || token < 0) {
      throw new QuireError(
        "invalid-argument",
        `promptTokens[${index}] is ${token}; a token id is an integer from 0 on.`,
        { index, token },
      );
    }
  }
}

/** How many answers are made of how many samples or beams. */
function checkChoices({ n, bestOf, beam, sampling }: EngineRequest, limits: RequestLimits): void {
  if (bestOf !== undefined) {
    checkCount("bestOf", bestOf);
    if (bestOf < n) refuse("bestOf", bestOf, `n (${n}) or more`);
    if (beam !== undefined) refuse("bestOf", bestOf, "left out in a beam search");
  }
  if (beam === undefined) return;
  checkCount("beam.width", beam.width);
  const most = Math.min(MAX_BEAM_WIDTH, limits.maxSequences);
  if (beam.width > most) {
    // A user's doing, in words that hold for users too: their name of the field is another.
    const { width } = beam;
    throw new QuireError(
      "invalid-argument",
      `A beam search of width ${width} can't run; at most ${most} beams can: each takes a slot (maxSequences is ${limits.maxSequences}), and no search has more than ${MAX_BEAM_WIDTH}.`,
      { width, most },
    );
  }
  if (beam.width < n) refuse("beam.width", beam.width, `n (${n}) or more`);
  if (!Number.isFinite(beam.lengthPenalty)) {
    refuse("beam.lengthPenalty", beam.lengthPenalty, "a finite number");
  }
  const isPlain =
    sampling.temperature === 0 && sampling.logitBias.length === 0 && !usesPenalties(sampling);
  if (!isPlain || sampling.logprobs !== GREEDY.logprobs) {
    throw new QuireError(
      "invalid-argument",
      "A beam search ranks by the model's own probabilities: temperature must be 0, without penalties, logitBias and logprobs.",
    );
  }
}

function checkSchedulingFields(request: EngineRequest): void {
  const { priority, deadlineMs, keep, numSpeculativeTokens } = request;
  if (priority !== undefined && !Number.isSafeInteger(priority)) {
    refuse("priority", priority, "an integer");
  }
  if (deadlineMs !== undefined && !(deadlineMs > 0)) {
    refuse("deadlineMs", deadlineMs, "above 0");
  }
  if (keep !== undefined && !(keep.ttlMs > 0)) refuse("keep.ttlMs", keep.ttlMs, "above 0");
  const drafts = numSpeculativeTokens ?? 0;
  if (!Number.isInteger(drafts) || drafts < 0 || drafts > MAX_SPECULATIVE_TOKENS) {
    refuse("numSpeculativeTokens", drafts, `an integer from 0 to ${MAX_SPECULATIVE_TOKENS}`);
  }
}

/** Most drafts of a sequence in a step. */
export const MAX_SPECULATIVE_TOKENS = 8;

function checkSize(request: EngineRequest, limits: RequestLimits): void {
  const promptTokens = request.promptTokens.length;
  const { maxContext, numBlocks, blockSize } = limits;
  const room = request.maxTokens === 0 ? maxContext : maxContext - 1;
  if (promptTokens > room) {
    const answer = room < maxContext ? ", one of them for the answer" : "";
    throw new QuireError(
      "context-overflow",
      `The prompt has ${promptTokens} tokens; the context holds ${maxContext}${answer}. Shorten the prompt.`,
      { promptTokens, maxContext },
    );
  }
  const maxTokens = Math.min(request.maxTokens, maxContext - promptTokens);
  const blocks = Math.ceil((promptTokens + maxTokens) / blockSize);
  // Samples can run one after the other; beams advance together and share the prompt's full blocks alone.
  const shared = Math.floor(promptTokens / blockSize);
  const width = request.beam?.width ?? 1;
  const needed = shared + width * (blocks - shared);
  if (needed > numBlocks) {
    const what = width === 1 ? "The request" : `A beam search of width ${width}`;
    throw new QuireError(
      "kv-pool-too-small",
      `${what} may need ${needed} KV blocks (${promptTokens} prompt and ${maxTokens} output tokens, ${blockSize} a block); the pool has ${numBlocks}. Ask for fewer tokens, shorten the prompt or enlarge the pool.`,
      { needed, total: numBlocks, blockSize, promptTokens, maxTokens },
    );
  }
}

/** Throws `invalid-argument` unless `value` is an integer >= 1. */
export function checkCount(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) refuse(name, value, "an integer >= 1");
}

function refuse(name: string, value: number, allowed: string): never {
  throw new QuireError("invalid-argument", `${name} is ${value}; it must be ${allowed}.`, {
    name,
    value,
  });
}
