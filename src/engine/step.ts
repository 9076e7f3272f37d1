import type { SamplingParams } from "./sampling.ts";

/** In `StepRow.token`: the row's token is what the back end last sampled for the row's slot. */
export const SAMPLED_TOKEN = -1;

/**
 * In `StepResult.tokens`: nothing could be sampled, since no logit of the row is a finite number. Steps in
 * flight may name it as SAMPLED_TOKEN; which token that is, is undefined.
 */
export const NO_TOKEN = -1;

/** One token of one sequence on its way through the model. */
export interface StepRow {
  /** Index of the sequence's resident state in the back end: block table, sampling state. < maxSequences. */
  readonly slot: number;
  /** Token id, or SAMPLED_TOKEN. */
  readonly token: number;
  /** Index of the token in its sequence, from 0. The row attends to positions 0..position. */
  readonly position: number;
  /** Where its K and V go: block id * blockSize + offset in the block. */
  readonly kvSlot: number;
}

/**
 * An entry of a sequence's block table that is new or points to another block than before (its own copy
 * of a shared one). Entries stay valid until they are sent again or the slot is reset, but for those behind
 * the slot's rows: where drafts were rejected, a block that is listed there may be another's by now.
 */
export interface BlockTableEntry {
  readonly slot: number;
  /** Index in the sequence's block table: position / blockSize, rounded down. */
  readonly index: number;
  readonly block: number;
}

/** A sequence that enters (or re-enters) a slot. Sent before its first row; the slot's old state is void. */
export interface SlotReset {
  readonly slot: number;
  readonly sampling: SamplingParams;
  /** Tokens so far, for the penalties; empty when `usesPenalties(sampling)` is false. */
  readonly promptTokens: readonly number[];
  readonly outputTokens: readonly number[];
}

/**
 * A row whose logits are wanted and a token to draw from them with a slot's sampling state.
 *
 * The row may be another slot's: samples of one prompt are all drawn from its last row. A slot whose
 * sampling state counts no tokens (no penalties) may have several samples in a step, at rows that hold
 * drafts; which of them `SAMPLED_TOKEN` then names is undefined.
 */
export interface StepSample {
  /** Index into `Step.rows`. */
  readonly row: number;
  readonly slot: number;
  /** Position of the token to be sampled (the row's + 1): the counter of its random numbers. */
  readonly position: number;
}

/**
 * A row whose logits are wanted to judge a token that is known: a prompt's, after the tokens before it.
 * Changes no sampling state and draws nothing.
 */
export interface StepScore {
  /** Index into `Step.rows`; never a sampled row. */
  readonly row: number;
  readonly token: number;
  /** Best tokens to report besides, 0..MAX_LOGPROBS. */
  readonly top: number;
}

/** K and V of a whole block, in all layers, copied within the pool. */
export interface BlockCopy {
  readonly source: number;
  readonly target: number;
}

/** K and V of a whole block, in all layers, on their way to host memory or back. */
export interface BlockSwap {
  readonly block: number;
  /** Place in the host tier, 0..numHostBlocks-1. */
  readonly hostBlock: number;
}

/**
 * One forward pass over a batch of rows: all that a back end needs to run it. Holds no tensor.
 *
 * What a step does to the pool, in this order: release, swap out, swap in, copy, rows. A block is the target
 * of at most one swap-in or copy, no copy's target is another's source, and a host block is named once.
 */
export interface Step {
  /** Counts up by one a step. */
  readonly id: number;
  /** Host blocks whose content nobody will swap in any more, if they hold any. */
  readonly hostReleases: readonly number[];
  /** The step's result arrives when the host has them: only later steps swap them in. */
  readonly swapOuts: readonly BlockSwap[];
  readonly swapIns: readonly BlockSwap[];
  /** At most one for each slot. */
  readonly copies: readonly BlockCopy[];
  readonly slotResets: readonly SlotReset[];
  readonly blockTableEntries: readonly BlockTableEntry[];
  /** Rows of one sequence are adjacent and ascend in position. 1..maxRows of them. */
  readonly rows: readonly StepRow[];
  readonly samples: readonly StepSample[];
  /** Samples and scores together are at most maxSequences: rows of logits that a back end holds. */
  readonly scores: readonly StepScore[];
}

/** Log-probabilities (natural, of the raw logits' softmax) at one token. */
export interface TokenLogprobs {
  readonly logprob: number;
  /** The n best tokens, best first, ties to the lowest id. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[];
}

/** What a score says of its token. */
export interface TokenScore extends TokenLogprobs {
  /** The token's place among all, in the order of `top`: 1 = the best. */
  readonly rank: number;
}

export interface StepResult {
  /** One id, or NO_TOKEN, for each of `Step.samples`. */
  readonly tokens: readonly number[];
  /** For each of `Step.samples`: set where the slot's sampling parameters ask for it. */
  readonly logprobs: readonly (TokenLogprobs | undefined)[];
  /** One for each of `Step.scores`. */
  readonly scores: readonly TokenScore[];
}

/** What runs steps. Steps run in the order of submission; the engine needs nothing else of a back end. */
export interface StepExecutor {
  /** Steps that may be submitted before the first of them has its result; default 1. */
  readonly maxStepsInFlight?: number;
  /**
   * A step that swaps may fail with `out-of-memory` for want of host memory: the engine goes on with the same
   * back end and swaps no more. What earlier steps swapped out must still be there then.
   */
  submit(step: Step): StepHandle;
}

export interface StepHandle {
  readonly result: Promise<StepResult>;
}
