import { type SamplingParams, usesPenalties } from "../sampling.ts";
import {
  SAMPLED_TOKEN,
  type Step,
  type StepExecutor,
  type StepHandle,
  type StepResult,
  type TokenLogprobs,
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

/** `source`: the token that a copying model repeats, in 7 of 8 places. */
function sampleToken(
  layer1: readonly number[],
  sampling: SamplingParams,
  seen: readonly number[],
  source: number | undefined,
): number {
  let hash = mix(sampling.seed[0], sampling.seed[1]);
  hash = mix(hash, layer1.length); // the position to be sampled: counter of the random numbers
  for (const value of layer1) hash = mix(hash, value);
  if (usesPenalties(sampling)) for (const token of seen) hash = mix(hash, token);
  if (source !== undefined && (hash >>> 9) % 8 > 0) return source;
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

/** Made-up log-probabilities of all tokens after a context, and the `count` best of them. */
export function tokenLogprobs(
  layer1: readonly number[],
  token: number,
  count: number,
): TokenLogprobs {
  const context = layer1.reduce(mix, mix(layer1.length, 0x2545f));
  const all = Array.from({ length: VOCABULARY_SIZE }, (_, id) => ({
    token: id,
    logprob: (-8 * (mix(context, id) >>> 0)) / 2 ** 32,
  }));
  const top = [...all].sort((a, b) => b.logprob - a.logprob || a.token - b.token).slice(0, count);
  return { logprob: all[token]!.logprob, top };
}

/** What layer 1 holds of tokens, computed without any paging. */
export function layer1Of(tokens: readonly number[]): readonly number[] {
  let context = 0;
  return tokens.map((token) => (context = mix(context, token)));
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

/** What a sequence says, and the sum of the log-probabilities of what was sampled, the stop token included. */
export interface ExpectedAnswer {
  readonly tokens: number[];
  readonly finishReason: "stop" | "length";
  readonly cumulativeLogprob: number;
}

/** What the model says after a prompt, computed without any paging. */
export function expectedTokens(
  prompt: readonly number[],
  sampling: SamplingParams,
  maxTokens: number,
  stopTokens: ReadonlySet<number>,
  copyPeriod?: number,
): ExpectedAnswer {
  const layer1: number[] = [];
  let context = 0;
  let cumulativeLogprob = 0;
  const tokens: number[] = [];
  const feed = (token: number) => layer1.push((context = mix(context, token)));
  prompt.forEach(feed);
  while (tokens.length < maxTokens) {
    const seen = [...prompt, ...tokens];
    const source = copyPeriod === undefined ? undefined : seen.at(-copyPeriod);
    const token = sampleToken(layer1, sampling, seen, source);
    cumulativeLogprob += tokenLogprobs(layer1, token, 0).logprob;
    if (stopTokens.has(token)) return { tokens, finishReason: "stop", cumulativeLogprob };
    tokens.push(token);
    feed(token);
  }
  return { tokens, finishReason: "length", cumulativeLogprob };
}

interface SlotState {
  readonly sampling: SamplingParams;
  readonly blocks: number[];
  /** Prompt and output, for penalties. */
  readonly seen: number[];
  /** Undefined too if several samples of a step make it ambiguous. */
  lastSampled: number | undefined;
}

/** A swapped-out block: [blockSize] of each layer. */
type HostBlock = readonly [layer0: Int32Array, layer1: Int32Array];

export interface PagedExecutorOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxSequences: number;
  readonly maxRows: number;
  readonly numHostBlocks?: number;
  readonly maxStepsInFlight?: number;
  /** Makes the model a copying one: in most places it says what it read or said so many tokens before. */
  readonly copyPeriod?: number;
}

/** Runs steps as a back end would and complains about any step that `step.ts` does not allow. */
export class PagedExecutor implements StepExecutor {
  readonly steps: Step[] = [];
  /** Called after a step has been computed and before its result arrives. */
  onFlight: (() => void) | undefined;
  /** The next step rejects with this: before it touches the pool, if `early`. */
  failure: { readonly error: Error; readonly early: boolean } | undefined;
  /** A step has failed, and the engine may not know it yet. */
  hasFailed = false;
  /** Most steps that were in flight at once. */
  mostInFlight = 0;
  readonly #options: PagedExecutorOptions;
  readonly #layer0: Int32Array; // [numBlocks * blockSize]
  readonly #layer1: Int32Array; // [numBlocks * blockSize]
  readonly #slots = new Map<number, SlotState>();
  readonly #host = new Map<number, HostBlock>();
  /** Steps whose results have not arrived. */
  #numInFlight = 0;

  constructor(options: PagedExecutorOptions) {
    this.#options = options;
    // Garbage, as in a fresh GPU buffer that was somebody else's.
    this.#layer0 = new Int32Array(options.numBlocks * options.blockSize).fill(0x5a5a5a);
    this.#layer1 = new Int32Array(options.numBlocks * options.blockSize).fill(0xa5a5a5);
  }

  /** Host blocks that hold something. */
  get numHostBlocks(): number {
    return this.#host.size;
  }

  get maxStepsInFlight(): number {
    return this.#options.maxStepsInFlight ?? 1;
  }

  submit(step: Step): StepHandle {
    check(this.#numInFlight < this.maxStepsInFlight, `${this.#numInFlight} steps in flight`);
    this.steps.push(step);
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) this.hasFailed = true;
    if (failure?.early) throw failure.error;
    const result = this.#compute(step);
    this.#numInFlight += 1;
    this.mostInFlight = Math.max(this.mostInFlight, this.#numInFlight);
    return { result: this.#deliver(result, failure?.error) };
  }

  async #deliver(result: StepResult, error: Error | undefined): Promise<StepResult> {
    await Promise.resolve();
    this.onFlight?.();
    this.#numInFlight -= 1;
    if (error) throw error;
    return result;
  }

  #compute(step: Step): StepResult {
    const { maxRows, maxSequences, numBlocks, blockSize } = this.#options;
    check(step.rows.length >= 1 && step.rows.length <= maxRows, `${step.rows.length} rows`);
    for (const { slot, sampling, promptTokens, outputTokens } of step.slotResets) {
      check(slot >= 0 && slot < maxSequences, `slot ${slot}`);
      const seen = [...promptTokens, ...outputTokens];
      check(usesPenalties(sampling) || seen.length === 0, "tokens only where penalties need them");
      this.#slots.set(slot, { sampling, blocks: [], seen, lastSampled: undefined });
    }
    for (const { slot, index, block } of step.blockTableEntries) {
      const { blocks } = this.#slot(slot);
      check(index <= blocks.length, `entry ${index} after ${blocks.length} entries`);
      check(block >= 0 && block < numBlocks, `block ${block}`);
      blocks[index] = block;
    }
    for (const { slot, position } of step.rows) {
      // What is listed behind the row is what rejected drafts had.
      const blocks = this.#slot(slot).blocks.slice(0, Math.floor(position / blockSize) + 1);
      check(new Set(blocks).size === blocks.length, "a table lists a block once");
    }
    this.#moveBlocks(step);
    // Layer 0: all rows write before any row reads.
    const ended = new Set<number>();
    const written = new Set<number>();
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
      check(!written.has(row.kvSlot), "two rows do not write to one place");
      written.add(row.kvSlot);
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
    const contextOf = (slot: SlotState, length: number): readonly number[] =>
      Array.from({ length }, (_, p) => this.#layer1[this.#kvSlot(slot, p)]!);
    const numLogits = step.samples.length + step.scores.length;
    check(numLogits <= maxSequences, `logits of ${numLogits} rows`);
    const sampledRows = new Set(step.samples.map(({ row }) => row));
    const scores = step.scores.map(({ row, token, top }) => {
      const { slot, position } = step.rows[row]!;
      check(!sampledRows.has(row), "a scored row is not sampled");
      return scoreToken(contextOf(this.#slot(slot), position + 1), token, top);
    });
    const numSamples = new Map<number, number>();
    for (const { slot } of step.samples) numSamples.set(slot, (numSamples.get(slot) ?? 0) + 1);
    const logprobs: (TokenLogprobs | undefined)[] = [];
    const tokens = step.samples.map(({ row, slot: slotIndex, position }) => {
      const slot = this.#slot(slotIndex);
      const owner = this.#slot(step.rows[row]!.slot);
      check(step.rows[row]?.position === position - 1, "a sample follows its row");
      const isOnly = numSamples.get(slotIndex) === 1;
      check(isOnly || !usesPenalties(slot.sampling), "counted tokens are sampled one a step");
      const context = contextOf(owner, position);
      const token = sampleToken(context, slot.sampling, slot.seen, this.#copied(owner, position));
      slot.lastSampled = isOnly ? token : undefined;
      slot.seen.push(token);
      const count = slot.sampling.logprobs;
      logprobs.push(count === undefined ? undefined : tokenLogprobs(context, token, count));
      return token;
    });
    return { tokens, logprobs, scores };
  }

  /** Swaps and copies, in the order that a step promises. */
  #moveBlocks({ hostReleases, swapOuts, swapIns, copies }: Step): void {
    const { blockSize, numHostBlocks = 0 } = this.#options;
    const start = (block: number) => block * blockSize;
    const named = [...hostReleases, ...[...swapOuts, ...swapIns].map(({ hostBlock }) => hostBlock)];
    check(new Set(named).size === named.length, "a host block is named once");
    for (const hostBlock of hostReleases) this.#host.delete(hostBlock);
    for (const { block, hostBlock } of swapOuts) {
      check(hostBlock >= 0 && hostBlock < numHostBlocks, `host block ${hostBlock}`);
      const content = [this.#layer0, this.#layer1].map((layer) =>
        layer.slice(start(block), start(block + 1)),
      );
      this.#host.set(hostBlock, content as unknown as HostBlock);
    }
    const targets = new Set<number>();
    for (const { block, hostBlock } of swapIns) {
      const content = this.#host.get(hostBlock);
      check(content !== undefined, `host block ${hostBlock} was swapped out`);
      check(!targets.has(block), "a block is filled once");
      targets.add(block);
      this.#layer0.set(content[0], start(block));
      this.#layer1.set(content[1], start(block));
      this.#host.delete(hostBlock);
    }
    check(copies.length <= this.#options.maxSequences, `${copies.length} copies`);
    const sources = new Set(copies.map(({ source }) => source));
    for (const { source, target } of copies) {
      check(!targets.has(target) && !sources.has(target), "a copy's target is nothing else");
      targets.add(target);
      for (const layer of [this.#layer0, this.#layer1]) {
        layer.copyWithin(start(target), start(source), start(source + 1));
      }
    }
  }

  /** The token that stands `copyPeriod` before `position` in the pool. */
  #copied(slot: SlotState, position: number): number | undefined {
    const { copyPeriod } = this.#options;
    if (copyPeriod === undefined || position < copyPeriod) return undefined;
    return this.#layer0[this.#kvSlot(slot, position - copyPeriod)]!;
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
