import { type SamplingParams, usesPenalties } from "../sampling.ts";
import {
  SAMPLED_TOKEN,
  type Step,
  type StepExecutor,
  type StepHandle,
  type StepResult,
  type TokenScore,
} from "../step.ts";

// A two-layer model small enough for property tests, with a real paged KV pool. Layer 0 stores tokens,
// layer 1 a hash of all that the row attends to in layer 0, and a sample is a hash of all of layer 1:
// a wrong block, a stale slot or a prefix shared with the wrong context changes the sampled tokens.

export const VOCABULARY_SIZE = 97;

function mix(hash: number, value: number): number {
  const mixed = Math.imul(hash ^ value, 0x9e3779b1);
  return mixed ^ (mixed >>> 13);
}

function sampleToken(
  layer1: readonly number[],
  sampling: SamplingParams,
  seen: readonly number[],
): number {
  let hash = mix(sampling.seed[0], sampling.seed[1]);
  hash = mix(hash, layer1.length); // the position to be sampled: counter of the random numbers
  for (const value of layer1) hash = mix(hash, value);
  if (usesPenalties(sampling)) for (const token of seen) hash = mix(hash, token);
  return (hash >>> 0) % VOCABULARY_SIZE;
}

/** A made-up judgement of a token after a context: any other context or token gives another. */
function scoreToken(layer1: readonly number[], token: number, top: number): TokenScore {
  const hash = layer1.reduce(mix, mix(layer1.length, token)) >>> 0;
  return {
    logprob: -hash / 2 ** 32,
    rank: 1 + (hash % VOCABULARY_SIZE),
    top: Array.from({ length: top }, (_, i) => ({
      token: (hash + i) % VOCABULARY_SIZE,
      logprob: -i,
    })),
  };
}

/** What the model says of a prompt's tokens from the second on, computed without any paging. */
export function expectedScores(prompt: readonly number[], top: number): readonly TokenScore[] {
  const layer1: number[] = [];
  let context = 0;
  return prompt.slice(1).map((token, i) => {
    layer1.push((context = mix(context, prompt[i]!)));
    return scoreToken(layer1, token, top);
  });
}

/** What the model says after a prompt, computed without any paging. */
export function expectedTokens(
  prompt: readonly number[],
  sampling: SamplingParams,
  maxTokens: number,
  stopTokens: ReadonlySet<number>,
): { readonly tokens: number[]; readonly finishReason: "stop" | "length" } {
  const layer1: number[] = [];
  let context = 0;
  const tokens: number[] = [];
  const feed = (token: number) => layer1.push((context = mix(context, token)));
  prompt.forEach(feed);
  while (tokens.length < maxTokens) {
    const token = sampleToken(layer1, sampling, [...prompt, ...tokens]);
    if (stopTokens.has(token)) return { tokens, finishReason: "stop" };
    tokens.push(token);
    feed(token);
  }
  return { tokens, finishReason: "length" };
}

interface SlotState {
  readonly sampling: SamplingParams;
  readonly blocks: number[];
  /** Prompt and output, for penalties. */
  readonly seen: number[];
  lastSampled: number | undefined;
}

export interface PagedExecutorOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxSequences: number;
  readonly maxRows: number;
}

/** Runs steps as a back end would and complains about any step that `step.ts` does not allow. */
export class PagedExecutor implements StepExecutor {
  readonly steps: Step[] = [];
  /** Called after a step has been computed and before its result arrives. */
  onFlight: (() => void) | undefined;
  /** The next step rejects with this: before it touches the pool, if `early`. */
  failure: { readonly error: Error; readonly early: boolean } | undefined;
  readonly #options: PagedExecutorOptions;
  readonly #layer0: Int32Array; // [numBlocks * blockSize]
  readonly #layer1: Int32Array; // [numBlocks * blockSize]
  readonly #slots = new Map<number, SlotState>();

  constructor(options: PagedExecutorOptions) {
    this.#options = options;
    // Garbage, as in a fresh GPU buffer that was somebody else's.
    this.#layer0 = new Int32Array(options.numBlocks * options.blockSize).fill(0x5a5a5a);
    this.#layer1 = new Int32Array(options.numBlocks * options.blockSize).fill(0xa5a5a5);
  }

  submit(step: Step): StepHandle {
    this.steps.push(step);
    const { failure } = this;
    this.failure = undefined;
    if (failure?.early) throw failure.error;
    const result = this.#compute(step);
    return { result: this.#deliver(result, failure?.error) };
  }

  async #deliver(result: StepResult, error: Error | undefined): Promise<StepResult> {
    await Promise.resolve();
    this.onFlight?.();
    if (error) throw error;
    return result;
  }

  #compute(step: Step): StepResult {
    const { maxRows, maxSequences, numBlocks } = this.#options;
    check(step.rows.length >= 1 && step.rows.length <= maxRows, `${step.rows.length} rows`);
    for (const { slot, sampling, promptTokens, outputTokens } of step.slotResets) {
      check(slot >= 0 && slot < maxSequences, `slot ${slot}`);
      const seen = [...promptTokens, ...outputTokens];
      check(usesPenalties(sampling) || seen.length === 0, "tokens only where penalties need them");
      this.#slots.set(slot, { sampling, blocks: [], seen, lastSampled: undefined });
    }
    for (const { slot, index, block } of step.blockTableEntries) {
      const { blocks } = this.#slot(slot);
      check(index === blocks.length, `entry ${index} after ${blocks.length} entries`);
      check(block >= 0 && block < numBlocks && !blocks.includes(block), `block ${block}`);
      blocks.push(block);
    }
    // Layer 0: all rows write before any row reads.
    const ended = new Set<number>();
    for (const [i, row] of step.rows.entries()) {
      const slot = this.#slot(row.slot);
      const before = step.rows[i - 1];
      if (before?.slot === row.slot) {
        check(row.position === before.position + 1, "rows of a sequence ascend");
      } else {
        check(!ended.has(row.slot), "rows of a sequence are adjacent");
        if (before) ended.add(before.slot);
      }
      check(row.kvSlot === this.#kvSlot(slot, row.position), `row of position ${row.position}`);
      const token = row.token === SAMPLED_TOKEN ? slot.lastSampled : row.token;
      check(token !== undefined && token >= 0, "a token that was sampled in this slot");
      this.#layer0[row.kvSlot] = token;
    }
    // Layer 1: each row attends to its context in layer 0.
    const contexts = step.rows.map((row) => {
      let context = 0;
      const slot = this.#slot(row.slot);
      for (let p = 0; p <= row.position; p++) {
        context = mix(context, this.#layer0[this.#kvSlot(slot, p)]!);
      }
      return context;
    });
    for (const [i, row] of step.rows.entries()) this.#layer1[row.kvSlot] = contexts[i]!;
    const layer1Of = (slot: SlotState, length: number): readonly number[] =>
      Array.from({ length }, (_, p) => this.#layer1[this.#kvSlot(slot, p)]!);
    const numLogits = step.samples.length + step.scores.length;
    check(numLogits <= maxSequences, `logits of ${numLogits} rows`);
    const sampledRows = new Set(step.samples.map(({ row }) => row));
    const scores = step.scores.map(({ row, token, top }) => {
      const { slot, position } = step.rows[row]!;
      check(!sampledRows.has(row), "a scored row is not sampled");
      return scoreToken(layer1Of(this.#slot(slot), position + 1), token, top);
    });
    const tokens = step.samples.map(({ row, slot: slotIndex, position }) => {
      const slot = this.#slot(slotIndex);
      check(step.rows[row]?.slot === slotIndex, "a sample belongs to its row");
      check(step.rows[row + 1]?.slot !== slotIndex, "a sample is its slot's last row");
      check(step.rows[row]?.position === position - 1, "a sample follows its row");
      slot.lastSampled = sampleToken(layer1Of(slot, position), slot.sampling, slot.seen);
      slot.seen.push(slot.lastSampled);
      return slot.lastSampled;
    });
    return { tokens, logprobs: tokens.map(() => undefined), scores };
  }

  #slot(slot: number): SlotState {
    const state = this.#slots.get(slot);
    check(state !== undefined, `slot ${slot} was reset`);
    return state;
  }

  #kvSlot(slot: SlotState, position: number): number {
    const { blockSize } = this.#options;
    const block = slot.blocks[Math.floor(position / blockSize)];
    check(block !== undefined, `a block for position ${position}`);
    return block * blockSize + (position % blockSize);
  }
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`The step breaks its contract: ${what}.`);
}
