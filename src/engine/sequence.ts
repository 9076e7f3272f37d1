import type { Drafter } from "./drafter.ts";
import type { SwappedBlocks } from "./hostBlocks.ts";
import {
  DEFAULT_SCOPE,
  type PrefixNode,
  type PrefixPlace,
  type PrefixScope,
} from "./prefixNode.ts";
import type { SamplingParams } from "./sampling.ts";
import { createTimes, type SequenceTimes } from "./sequenceTimes.ts";
import type { TokenLogprobs, TokenScore } from "./step.ts";
import { NOT_QUEUED, queueKey } from "./waitingQueue.ts";

export type RequestId = string | number;

/** Why a sequence ended: a stop token or string, its length limit, the caller, its deadline, or a failure. */
export type FinishReason = "stop" | "length" | "abort" | "deadline" | "error";

/** Slot of a sequence that is not resident in the back end. */
export const NO_SLOT = -1;

export interface SequenceOptions {
  readonly requestId: RequestId;
  /** Which of the request's samples. */
  readonly index: number;
  /** Place among all sequences ever added; lower came first. */
  readonly arrival: number;
  readonly promptTokens: readonly number[];
  /** Most output tokens, already clipped to the context. 0: it ends when its prompt is computed. */
  readonly maxTokens: number;
  /** Tokens that end the sequence and are not part of its output. */
  readonly stopTokens: ReadonlySet<number>;
  /** Best tokens to report in the place of each of the prompt's tokens; undefined = no scores. */
  readonly promptLogprobs?: number | undefined;
  readonly sampling: SamplingParams;
  /** What besides the tokens keys its prefixes: salt and adapter. Equal scopes share. */
  readonly prefixScope?: PrefixScope;
  /** Lower comes first. Default 0. */
  readonly priority?: number;
  /** When its request came, on the engine's clock. Default 0. */
  readonly arrivalMs?: number;
  /** The conversation that it is a turn of. */
  readonly session?: string | undefined;
}

/** Beams that advance, wait and are preempted together; `BeamGroup` is what they are. */
export interface FellowBeams {
  readonly search: { readonly width: number };
  /** Best first. */
  readonly live: readonly Sequence[];
  /** Forgets what came of a step whose other beams were preempted. */
  reset(): void;
  /** Makes the first beam the trunk from which the others fork again when it is computed anew. */
  joinForResume(): Sequence;
}

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
  readonly sampling: SamplingParams;
  readonly prefixScope: PrefixScope;
  readonly priority: number;
  /** Its place in the waiting queue: lower goes first. Kept over preemptions. */
  readonly queueKey: number;
  readonly session: string | undefined;
  readonly times: SequenceTimes;
  /** Best tokens that each prompt score names. */
  readonly numTopScores: number;

  /** Prompt and output, as far as the values are known. */
  readonly tokens: number[];
  /** Samples in flight whose tokens will follow `tokens`. */
  numPendingTokens = 0;
  /** Sum of the output tokens' log-probabilities, where the sampling parameters ask for them. */
  cumulativeLogprob = 0;
  /** Of the output tokens, kept until a withheld sample is delivered. */
  readonly logprobs: TokenLogprobs[] = [];
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

  /** Sequences that start from this one's blocks once its first `forkAt` tokens are computed, */
  forks: readonly Sequence[] = [];
  forkAt = 0;
  /** and the one that this one will start from so. */
  forksFrom: Sequence | undefined;

  /** Where its state lives in the back end, while running. */
  slot = NO_SLOT;
  /** Goes up whenever it leaves a slot: results of an earlier epoch are void. */
  epoch = 0;
  /** True until the back end was told who entered the slot. */
  isFresh = false;
  /** True while it can have no rows: its next ones depend on the result of a step in flight. */
  isHeld = false;
  /** True if the last token, known or pending, is what the slot sampled last. */
  lastTokenInSlot = false;
  /** Physical blocks; entry i holds positions [i * blockSize, (i + 1) * blockSize). */
  readonly blockTable: number[] = [];
  /** Leading entries of the table that the back end knows; a block that is replaced takes them back. */
  numSentBlocks = 0;
  /** Tokens whose K and V are in the pool once the steps scheduled so far have run. */
  numComputedTokens = 0;
  /** Leading blocks of the table that the prefix cache knows, and the node of the last of them. */
  numHashedBlocks = 0;
  prefix: PrefixNode | undefined;
  /** Hashes of the full blocks of `tokens`, as far as anybody asked: the prefix cache's own. */
  readonly blockHashes: number[] = [];
  /** While it waits: how far what it begins with is cached, and held by others, as it was found last. */
  lastHit: PrefixPlace | undefined;
  lastHeld: PrefixPlace | undefined;
  /** Its K and V in host memory, while it waits swapped out. */
  swapped: SwappedBlocks | undefined;

  /** Where the waiting queue keeps it; NOT_QUEUED elsewhere. */
  heapIndex = NOT_QUEUED;
  /** True while it waits after a preemption. */
  isPaused = false;
  /** Admissions that overtook it since it first did not fit. */
  numSkips = 0;
  /** When it last got rows, or came. */
  lastProgressMs = 0;

  /** The beams of its search, itself among them, if it is a beam. */
  beams: FellowBeams | undefined;

  /** Set where drafts are wanted. */
  drafter: Drafter | undefined;

  /** Neighbours among the running; `SequenceQueue` alone writes them. */
  previous: Sequence | undefined;
  next: Sequence | undefined;

  constructor(options: SequenceOptions) {
    this.requestId = options.requestId;
    this.index = options.index;
    this.arrival = options.arrival;
    this.numPromptTokens = options.promptTokens.length;
    this.maxTokens = options.maxTokens;
    this.stopTokens = options.stopTokens;
    this.sampling = options.sampling;
    this.prefixScope = options.prefixScope ?? DEFAULT_SCOPE;
    this.priority = options.priority ?? 0;
    this.times = createTimes(options.arrivalMs ?? 0);
    this.queueKey = queueKey({ arrivalMs: this.times.arrivalMs, priority: this.priority });
    this.lastProgressMs = this.times.arrivalMs;
    this.session = options.session;
    this.numTopScores = options.promptLogprobs ?? 0;
    this.promptScores = options.promptLogprobs === undefined ? undefined : [];
    this.tokens = [...options.promptTokens];
  }

  /** Another sequence of the same request with the same tokens; it holds no blocks and no slot. */
  copy(): Sequence {
    const promptTokens = this.tokens.slice(0, this.numPromptTokens);
    const copy = new Sequence({ ...this, promptTokens, arrivalMs: this.times.arrivalMs });
    copy.tokens.push(...this.tokens.slice(this.numPromptTokens));
    copy.beams = this.beams;
    copy.cachedTokens = this.cachedTokens;
    copy.lastProgressMs = this.lastProgressMs;
    return copy;
  }

  /** Tokens known and in flight. */
  get numTokens(): number {
    return this.tokens.length + this.numPendingTokens;
  }

  /** Output tokens known and in flight. */
  get numOutputTokens(): number {
    return this.numTokens - this.numPromptTokens;
  }

  /** Tokens that still need a row: 1 while decoding, more while a prompt or a resume is computed. */
  get numMissingTokens(): number {
    return this.numTokens - this.numComputedTokens;
  }

  /** Whether prompt scores are still to come. */
  get lacksScores(): boolean {
    return this.promptScores !== undefined && this.promptScores.length < this.numPromptTokens - 1;
  }

  /** The first position whose logits are wanted: K and V of those before it may come from the prefix cache. */
  get firstNeededRow(): number {
    if (this.lacksScores) return this.promptScores!.length;
    // Whoever forks does so from a row of the step.
    const end = this.forks.length > 0 ? this.forkAt : this.tokens.length;
    return Math.min(end, this.tokens.length) - 1;
  }

  /** `forks` will start from this sequence's blocks when its first `forkAt` tokens are computed. */
  setForks(forks: readonly Sequence[], forkAt: number): void {
    this.forks = forks;
    this.forkAt = forkAt;
    for (const fork of forks) fork.forksFrom = this;
  }

  /** Hands the prompt's scores out, once all are there; undefined before and after. */
  takePromptScores(): readonly TokenScore[] | undefined {
    if (this.lacksScores) return undefined;
    const scores = this.promptScores;
    this.promptScores = undefined;
    return scores;
  }
}
