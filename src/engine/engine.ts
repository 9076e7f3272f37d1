import { invariant, QuireError } from "../errors.ts";
import { checkCount, createRequest, type EngineRequest, type Request } from "./request.ts";
import { Scheduler } from "./scheduler.ts";
import type { FinishReason, RequestId, Sequence } from "./sequence.ts";
import { outputOf, type SequenceOutput } from "./sequenceOutput.ts";
import type { StepExecutor, StepResult, TokenLogprobs } from "./step.ts";
import { StepBudget } from "./stepBudget.ts";
import type { ScheduledStep } from "./stepBuilder.ts";

/**
 * Aim for the length of a step that computes prompts. Far above the 7 to 20 ms that hundreds of
 * dispatches cost in themselves, and short enough for tokens and frames to keep flowing.
 */
export const DEFAULT_STEP_BUDGET_MS = 50;

export interface EngineOptions {
  readonly executor: StepExecutor;
  /** Blocks of the KV pool. */
  readonly numBlocks: number;
  /** Tokens a block. */
  readonly blockSize: number;
  /** Slots of the back end: most sequences that run at once. No more than `maxRows` ever do. */
  readonly maxSequences: number;
  /** Most rows of a step. */
  readonly maxRows: number;
  /** Most tokens of a sequence, prompt and output. */
  readonly maxContext: number;
  /** Tokens with which the model ends its answer. */
  readonly endTokens: ReadonlySet<number>;
  /** Milliseconds of any monotonic clock. */
  readonly now: () => number;
  /** Default DEFAULT_STEP_BUDGET_MS. */
  readonly stepBudgetMs?: number;
}

/** Counters since the engine was made, and gauges of now. */
export interface EngineStats {
  /** Sequences that are resident, and that wait. */
  readonly running: number;
  readonly waiting: number;
  /** Steps scheduled, prompt chunks included, and their rows. */
  readonly steps: number;
  readonly rows: number;
  /** Sequences put back to the queue and recomputed. */
  readonly preemptions: number;
  readonly kvBlocksTotal: number;
  /** Blocks that sequences hold, now and at most so far. */
  readonly kvBlocksUsed: number;
  readonly kvBlocksPeak: number;
  /** Blocks that hold a reusable prefix, held by a sequence or not. */
  readonly kvBlocksCached: number;
  /** Prompt tokens looked up in the prefix cache, and found; a sequence counts once. */
  readonly prefixCacheQueries: number;
  readonly prefixCacheHits: number;
  /** Prompt tokens of the requests added, once a request. */
  readonly promptTokens: number;
  /** Tokens delivered. */
  readonly generationTokens: number;
  /** Learned cost of a step: so much, and so much more a row. 0 until measured. */
  readonly msPerStep: number;
  readonly msPerRow: number;
}

/** Runs any number of requests through one back end, step by step. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #budget: StepBudget;
  readonly #scheduler: Scheduler;
  readonly #requests = new Map<RequestId, Request>();
  #executor: StepExecutor;
  #inFlight: ScheduledStep | undefined;
  #numArrivals = 0;
  #numRows = 0;
  #promptTokens = 0;
  #generationTokens = 0;

  /** Throws `invalid-argument`. */
  constructor(options: EngineOptions) {
    const { numBlocks, blockSize, maxSequences, maxRows, maxContext } = options;
    checkCount("numBlocks", numBlocks);
    checkCount("blockSize", blockSize);
    checkCount("maxSequences", maxSequences);
    checkCount("maxRows", maxRows);
    checkCount("maxContext", maxContext);
    const budgetMs = options.stepBudgetMs ?? DEFAULT_STEP_BUDGET_MS;
    if (!(budgetMs > 0)) {
      throw new QuireError("invalid-argument", `stepBudgetMs is ${budgetMs}; it must be above 0.`);
    }
    this.#options = options;
    this.#executor = options.executor;
    this.#budget = new StepBudget({ budgetMs, maxRows });
    this.#scheduler = new Scheduler({ numBlocks, blockSize, maxSequences, budget: this.#budget });
  }

  /** True while a request has not ended: then `step` makes progress. */
  get hasWork(): boolean {
    return this.#requests.size > 0;
  }

  /**
   * Queues a request; the queue has no limit.
   * Throws `invalid-argument`, `context-overflow`, or `kv-pool-too-small` if it could never fit.
   */
  add(request: EngineRequest): void {
    if (this.#requests.has(request.id)) {
      throw new QuireError(
        "invalid-argument",
        `A request with the id ${request.id} has not ended yet; ids must be unique.`,
      );
    }
    const created = createRequest(request, this.#options, this.#numArrivals);
    this.#numArrivals += created.sequences.length;
    this.#promptTokens += request.promptTokens.length;
    this.#requests.set(created.id, created);
    for (const sequence of created.sequences) this.#scheduler.add(sequence);
  }

  /**
   * One forward pass over a batch of all that can run: schedule, submit, postprocess. Resolves to the
   * news; empty if there is no work or only prompt chunks were computed. One step at a time.
   *
   * Rejects with the back end's error if the step fails. The engine is then as after `replaceExecutor`:
   * everything waits again and nothing is lost, so the caller may abort, replace the back end or retry.
   */
  async step(): Promise<readonly SequenceOutput[]> {
    invariant(this.#inFlight === undefined, "step() was called while a step is in flight.");
    const scheduled = this.#scheduler.schedule();
    if (scheduled === undefined) return [];
    const result = await this.#submit(scheduled);
    return result === undefined ? [] : this.#postprocess(scheduled, result);
  }

  /** Ends a request now. Returns the last output of each sequence that had not ended; none the second time. */
  abort(id: RequestId): readonly SequenceOutput[] {
    const unfinished = this.#requests.get(id)?.sequences.filter((s) => s.status !== "finished");
    return (unfinished ?? []).map((sequence) => this.#finish(sequence, "abort"));
  }

  /** Ends one sequence now, as a matched stop string does. Undefined if it has ended already. */
  finishSequence(
    id: RequestId,
    index: number,
    reason: FinishReason = "stop",
  ): SequenceOutput | undefined {
    const sequence = this.#requests.get(id)?.sequences[index];
    if (sequence === undefined || sequence.status === "finished") return undefined;
    return this.#finish(sequence, reason);
  }

  /**
   * Takes all blocks and slots back; every sequence is recomputed and goes on with the same tokens.
   * Samples of a step in flight are dropped and drawn again.
   */
  preemptAll(): void {
    this.#scheduler.preemptAll();
  }

  /**
   * Goes on with another back end of the same sizes whose KV pool is empty, as after a lost device.
   * A step in flight on the old one is forgotten: its `step()` resolves to no outputs, even if it fails.
   */
  replaceExecutor(executor: StepExecutor): void {
    this.#executor = executor;
    this.#inFlight = undefined;
    this.#dropKvPool();
  }

  stats(): EngineStats {
    const scheduler = this.#scheduler;
    const { pool, numCachedBlocks } = scheduler.kvCache;
    return {
      running: scheduler.running.size,
      waiting: scheduler.waiting.size,
      steps: scheduler.numSteps,
      rows: this.#numRows,
      preemptions: scheduler.numPreemptions,
      kvBlocksTotal: pool.numBlocks,
      kvBlocksUsed: pool.numUsed,
      kvBlocksPeak: pool.peakUsed,
      kvBlocksCached: numCachedBlocks,
      prefixCacheQueries: scheduler.prefixCacheQueries,
      prefixCacheHits: scheduler.prefixCacheHits,
      promptTokens: this.#promptTokens,
      generationTokens: this.#generationTokens,
      msPerStep: this.#budget.msPerStep,
      msPerRow: this.#budget.msPerRow,
    };
  }

  /** Throws `internal` if the books are wrong. Walks everything: for tests and development. */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity();
    let unfinished = 0;
    for (const request of this.#requests.values()) {
      const open = request.sequences.filter((sequence) => sequence.status !== "finished").length;
      invariant(
        open === request.numUnfinished && open > 0,
        `Request ${request.id} has ${open} open sequences and counts ${request.numUnfinished}.`,
      );
      unfinished += open;
    }
    const { running, waiting } = this.#scheduler;
    invariant(
      unfinished === running.size + waiting.size,
      `${unfinished} sequences are open, ${running.size} run and ${waiting.size} wait.`,
    );
  }

  /** Undefined if the back end was replaced meanwhile. */
  async #submit(scheduled: ScheduledStep): Promise<StepResult | undefined> {
    const { step } = scheduled;
    this.#inFlight = scheduled;
    this.#numRows += step.rows.length;
    const startMs = this.#options.now();
    try {
      const result = await this.#executor.submit(step).result;
      if (this.#inFlight !== scheduled) return undefined;
      checkResult(scheduled, result);
      this.#budget.record(step.rows.length, this.#options.now() - startMs);
      this.#inFlight = undefined;
      return result;
    } catch (error) {
      if (this.#inFlight !== scheduled) return undefined;
      this.#inFlight = undefined;
      this.#dropKvPool();
      throw error;
    }
  }

  #postprocess(scheduled: ScheduledStep, result: StepResult): readonly SequenceOutput[] {
    const outputs: SequenceOutput[] = [];
    const { scores, rows } = scheduled.step;
    for (const [i, sequence] of scheduled.scoredSequences.entries()) {
      // As below. What was preempted computes and scores these rows again.
      if (sequence.status !== "running") continue;
      sequence.promptScores![rows[scores[i]!.row]!.position] = result.scores[i]!;
    }
    for (const [i, sequence] of scheduled.sampledSequences.entries()) {
      // Ended or preempted while the step was in flight: the sample is void.
      if (sequence.status !== "running") continue;
      outputs.push(this.#append(sequence, result.tokens[i]!, result.logprobs[i]));
    }
    return outputs;
  }

  #append(sequence: Sequence, token: number, logprobs: TokenLogprobs | undefined): SequenceOutput {
    if (sequence.maxTokens === 0) return this.#finish(sequence, "length"); // only the prompt was asked about
    if (sequence.stopTokens.has(token)) {
      sequence.stopToken = token;
      return this.#finish(sequence, "stop");
    }
    sequence.tokens.push(token);
    sequence.lastTokenInSlot = true;
    this.#generationTokens += 1;
    const news = [[token], logprobs && [logprobs]] as const;
    return sequence.numOutputTokens === sequence.maxTokens
      ? this.#finish(sequence, "length", ...news)
      : outputOf(sequence, ...news);
  }

  #finish(
    sequence: Sequence,
    reason: FinishReason,
    tokens: readonly number[] = [],
    logprobs?: readonly TokenLogprobs[],
  ): SequenceOutput {
    this.#scheduler.finish(sequence, reason);
    const request = this.#requests.get(sequence.requestId)!;
    request.numUnfinished -= 1;
    if (request.numUnfinished === 0) this.#requests.delete(request.id);
    return outputOf(sequence, tokens, logprobs);
  }

  /**
   * What the KV pool holds is lost, or blocks already offered for sharing were never written: everyone
   * recomputes and no prefix is trusted.
   */
  #dropKvPool(): void {
    this.#scheduler.preemptAll();
    this.#scheduler.kvCache.clear();
  }
}

function checkResult({ step }: ScheduledStep, { tokens, logprobs, scores }: StepResult): void {
  const { length } = step.samples;
  const valid =
    tokens.length === length &&
    logprobs.length === length &&
    scores.length === step.scores.length &&
    tokens.every((token) => Number.isInteger(token) && token >= 0);
  invariant(
    valid,
    `The back end answered step ${step.id} with ${tokens.length} tokens (${tokens.join(", ")}), ${logprobs.length} log-probability lists and ${scores.length} scores for ${length} samples and ${step.scores.length} scores.`,
  );
}
