import type { SamplingParams } from "./sampling.ts";
import type { RequestId } from "./sequence.ts";

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
  /**
   * Samples to draw, n or more: the n with the highest mean log-probability a token are delivered, when
   * all have ended. Default n, and samples are then delivered as they come.
   */
  readonly bestOf?: number;
  /** Beam search instead of sampling: `sampling` must be greedy; the n best hypotheses come at the end. */
  readonly beam?: BeamSearchParams;
  /** Lower comes first, as in vLLM; any integer. Default 0. */
  readonly priority?: number;
  /** Prefixes are shared among requests of equal salt only. Default: the empty one. */
  readonly cacheSalt?: string;
  /** Which LoRA adapter computes K and V; part of the prefix key. Default null, the base model. */
  readonly adapterId?: string | null;
  /** Milliseconds from now after which the request ends with `deadline`, whatever it has. Default none. */
  readonly deadlineMs?: number;
  /** The prompt's K and V are evicted last: for `ttlMs` after their last use, or without end. */
  readonly keep?: Keep;
  /** The conversation that it is a turn of: the branch that an edited turn leaves is evicted first. */
  readonly session?: string;
  /** Most draft tokens a step by prompt lookup; 0 = off. Default 0. */
  readonly numSpeculativeTokens?: number;
}

/** How beam search ranks and ends. Names and meaning as in vLLM and Hugging Face. */
export interface BeamSearchParams {
  /** Hypotheses that are followed at once, 1..MAX_BEAM_WIDTH. */
  readonly width: number;
  /** A hypothesis's score is its log-probability / length ** lengthPenalty. */
  readonly lengthPenalty: number;
  /**
   * true: ends with `width` finished hypotheses. false: also needs that no live one scores better as it
   * is. "never": also needs that no live one could ever score better.
   */
  readonly earlyStopping: boolean | "never";
}

/** How long a prompt's prefix is kept before others. */
export interface Keep {
  /** Infinity: until `Engine.endSession` or `resetPrefixCache`. */
  readonly ttlMs: number;
}

/** What a request is checked against. */
export interface RequestLimits {
  readonly maxContext: number;
  readonly numBlocks: number;
  readonly blockSize: number;
  /** Most sequences that run at once. */
  readonly maxSequences: number;
  readonly endTokens: ReadonlySet<number>;
}
