import type { PrefixNode } from "./prefixCache.ts";
import type { SamplingParams } from "./sampling.ts";
import type { TokenScore } from "./step.ts";

export type RequestId = string | number;

/** Why a sequence ended: a stop token or string, its length limit, the caller, or a failure. */
export type FinishReason = "stop" | "length" | "abort" | "error";

export interface SequenceOptions {
  readonly requestId: RequestId;
  /** Which of the request's n samples. */
  readonly index: number;
  /** Place in the queue of all sequences ever added; lower came first. */
  readonly arrival: number;
  readonly promptTokens: readonly number[];
  /** Most output tokens, already clipped to the context. 0: it ends when its prompt is computed. */
  readonly maxTokens: number;
  /** Tokens that end the sequence and are not part of its output. */
  readonly stopTokens: ReadonlySet<number>;
  /** Best tokens to report in the place of each of the prompt's tokens; undefined = no scores. */
  readonly promptLogprobs?: number | undefined;
  readonly sampling: SamplingParams;
}

/** Slot of a sequence that is not resident in the back end. */
export const NO_SLOT = -1;

/**
 * One stream of tokens: a prompt and what was sampled after it. Tokens survive preemption; everything
 * about the KV pool below is void while the sequence waits.
 */
export class Sequence {
  readonly requestId: RequestId;
  readonly index: number;
  readonly arrival: number;
  readonly numPromptTokens: number;
  readonly maxTokens: number;
  readonly stopTokens: ReadonlySet<number>;
  /** Best tokens that each prompt score names. */
  readonly numTopScores: number;
  readonly sampling: SamplingParams;

  /** Prompt and output; all values are known. */
  readonly tokens: number[];
  status: "waiting" | "running" | "finished" = "waiting";
  finishReason: FinishReason | undefined;
  /** The stop token that ended it, if one did. */
  stopToken: number | undefined;
  /** Prompt tokens found in the prefix cache at the first admission; undefined before it. */
  cachedTokens: number | undefined;
  /**
   * Scores of the prompt's tokens from the second on, as far as they have come: entry i is what the row
   * of position i says of the token after it. Undefined if none are wanted or they were delivered.
   */
  promptScores: TokenScore[] | undefined;

  /** Where its state lives in the back end, while running. */
  slot = NO_SLOT;
  /** Physical blocks; entry i holds positions [i * blockSize, (i + 1) * blockSize). */
  readonly blockTable: number[] = [];
  /** Tokens whose K and V are in the pool once the steps scheduled so far have run. */
  numComputedTokens = 0;
  /** Leading blocks of the table that the prefix cache knows, and the node of the last of them. */
  numHashedBlocks = 0;
  prefix: PrefixNode | undefined;
  /** True if the last token was sampled in the present slot, so the back end has it already. */
  lastTokenInSlot = false;

  /** Neighbours in the queue that holds the sequence; `SequenceQueue` alone writes them. */
  previous: Sequence | undefined;
  next: Sequence | undefined;

  constructor(options: SequenceOptions) {
    this.requestId = options.requestId;
    this.index = options.index;
    this.arrival = options.arrival;
    this.numPromptTokens = options.promptTokens.length;
    this.maxTokens = options.maxTokens;
    this.stopTokens = options.stopTokens;
    this.numTopScores = options.promptLogprobs ?? 0;
    this.promptScores = options.promptLogprobs === undefined ? undefined : [];
    this.sampling = options.sampling;
    this.tokens = [...options.promptTokens];
  }

  get numTokens(): number {
    return this.tokens.length;
  }

  get numOutputTokens(): number {
    return this.tokens.length - this.numPromptTokens;
  }

  /** Tokens that still need a row: 1 while decoding, more while a prompt or a resume is computed. */
  get numMissingTokens(): number {
    return this.tokens.length - this.numComputedTokens;
  }

  /** Whether prompt scores are still to come. */
  get lacksScores(): boolean {
    return this.promptScores !== undefined && this.promptScores.length < this.numPromptTokens - 1;
  }

  /** The first position whose logits are wanted: K and V of those before it may come from the prefix cache. */
  get firstNeededRow(): number {
    return this.lacksScores ? this.promptScores!.length : this.tokens.length - 1;
  }

  /** Hands the prompt's scores out, once all are there; undefined before and after. */
  takePromptScores(): readonly TokenScore[] | undefined {
    if (this.lacksScores) return undefined;
    const scores = this.promptScores;
    this.promptScores = undefined;
    return scores;
  }
}
