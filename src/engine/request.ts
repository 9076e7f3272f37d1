import { QuireError } from "../errors.ts";
import type { SamplingParams } from "./sampling.ts";
import { type RequestId, Sequence } from "./sequence.ts";

/** What a user asked: one prompt, n samples of its continuation. */
export interface EngineRequest {
  /** Unique among the requests that have not ended. */
  readonly id: RequestId;
  /** At least one token. */
  readonly promptTokens: readonly number[];
  /** Samples; sample i uses seed + i. */
  readonly n: number;
  /** Most output tokens of a sample; clipped to what the context leaves. 0 only with `promptLogprobs`. */
  readonly maxTokens: number;
  /** Tokens that end a sample, besides the model's end tokens. */
  readonly stopTokenIds: readonly number[];
  /** Treat the model's end tokens as any other token. Default false. */
  readonly ignoreEos?: boolean;
  /**
   * Log-probabilities of the prompt's tokens: undefined = none, 0 = the tokens' own, n = also of the n
   * best in their places. They are computed once and come with the first output of the first sample.
   */
  readonly promptLogprobs?: number;
  readonly sampling: SamplingParams;
}

/** A request in the engine. */
export interface Request {
  readonly id: RequestId;
  readonly sequences: readonly Sequence[];
  /** Sequences that have not ended. */
  numUnfinished: number;
}

export interface RequestLimits {
  readonly maxContext: number;
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly endTokens: ReadonlySet<number>;
}

/**
 * Checks a request against the limits and makes its sequences, numbered from `arrival` on.
 * Throws `invalid-argument`, `context-overflow`, `kv-pool-too-small`.
 */
export function createRequest(
  request: EngineRequest,
  limits: RequestLimits,
  arrival: number,
): Request {
  checkFields(request);
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
  const needed = Math.ceil((promptTokens + maxTokens) / blockSize);
  if (needed > numBlocks) {
    throw new QuireError(
      "kv-pool-too-small",
      `The request may need ${needed} KV blocks (${promptTokens} prompt and ${maxTokens} output tokens, ${blockSize} a block); the pool has ${numBlocks}. Lower maxTokens, shorten the prompt or enlarge the pool.`,
      { needed, total: numBlocks, blockSize, promptTokens, maxTokens },
    );
  }
  const stopTokens = new Set(request.stopTokenIds);
  if (!request.ignoreEos) for (const token of limits.endTokens) stopTokens.add(token);
  const sequences = Array.from(
    { length: request.n },
    (_, index) =>
      new Sequence({
        requestId: request.id,
        index,
        arrival: arrival + index,
        promptTokens: request.promptTokens,
        maxTokens,
        stopTokens,
        promptLogprobs: index === 0 ? request.promptLogprobs : undefined,
        sampling: { ...request.sampling, seed: addToSeed(request.sampling.seed, index) },
      }),
  );
  return { id: request.id, sequences, numUnfinished: request.n };
}

function checkFields(request: EngineRequest): void {
  const { promptTokens } = request;
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
  checkCount("n", request.n);
  if (request.maxTokens !== 0 || request.promptLogprobs === undefined) {
    checkCount("maxTokens", request.maxTokens);
  }
}

/** Throws `invalid-argument` unless `value` is an integer >= 1. */
export function checkCount(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) {
    throw new QuireError("invalid-argument", `${name} is ${value}; it must be an integer >= 1.`, {
      name,
      value,
    });
  }
}

/** 64-bit addition over two unsigned words. */
function addToSeed(
  [low, high]: readonly [number, number],
  index: number,
): readonly [number, number] {
  const sum = low + index;
  return [sum >>> 0, (high + Math.floor(sum / 2 ** 32)) >>> 0];
}
