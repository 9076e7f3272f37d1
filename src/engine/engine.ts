import { invariant, QuireError } from "../errors.ts";
import { Deadlines } from "./deadlines.ts";
import type { EngineRequest } from "./engineRequest.ts";
import { type EngineStats, type KvUsage, measureKvUsage } from "./engineStats.ts";
import { type EngineEvent, EventLog } from "./eventLog.ts";
import { EngineMetrics } from "./metrics.ts";
import type { WaitingOrder } from "./newcomers.ts";
import { Outcomes } from "./outcomes.ts";
import { OutputEstimate } from "./outputEstimate.ts";
import { PipelineDepth } from "./pipelineDepth.ts";
import { createRequest } from "./request.ts";
import { checkCount } from "./requestChecks.ts";
import { Scheduler } from "./scheduler.ts";
import type { FinishReason, RequestId } from "./sequence.ts";
import type { SequenceOutput } from "./sequenceOutput.ts";
import type { StepExecutor, StepResult } from "./step.ts";
import { StepBudget } from "./stepBudget.ts";
import type { ScheduledStep } from "./stepBuilder.ts";
import { checkResult, submitStep } from "./submitStep.ts";
import { SwapPolicy } from "./swapPolicy.ts";
import { type Stall, Watchdog } from "./watchdog.ts";

/**
 * Aim for the length of a step that computes prompts. Far above the 7 to 20 ms that hundreds of
 * dispatches cost in themselves, and short enough for tokens and frames to keep flowing.
 */
export const DEFAULT_STEP_BUDGET_MS = 50;

/** A sequence without a row or token for so long is named as stalled. */
export const DEFAULT_STALL_MS = 30_000;

export interface EngineOptions {
  readonly executor: StepExecutor;
  /** Blocks of the KV pool. */
  readonly numBlocks: number;
  /** Tokens a block. */
  readonly blockSize: number;
  /** Bytes of a block, for the cost of swapping. Default 0: moving is taken to be free until measured. */
  readonly blockBytes?: number;
  /** Blocks of host memory for swapped-out sequences. Default 0: victims are always recomputed. */
  readonly numHostBlocks?: number;
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
  /** Default "fcfs". */
  readonly waitingOrder?: WaitingOrder;
  /** Default DEFAULT_STALL_MS. */
  readonly stallMs?: number;
}

interface StepInFlight {
  readonly scheduled: ScheduledStep;
  readonly result: Promise<StepResult>;
  readonly submittedMs: number;
}

/** Runs any number of requests through one back end, step by step. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #budget: StepBudget;
  readonly #swapPolicy: SwapPolicy;
  readonly #events = new EventLog();
  readonly #metrics = new EngineMetrics();
  readonly #scheduler: Scheduler;
  readonly #outcomes: Outcomes;
  readonly #watchdog: Watchdog;
  readonly #deadlines = new Deadlines();
  #depth: PipelineDepth;
  #executor: StepExecutor;
  /** In order of submission. */
  #inFlight: StepInFlight[] = [];
  /** The call of `step` under way; a replaced back end's is none any more. */
  #call: symbol | undefined;
  #lastResultMs = 0;
  #numArrivals = 0;
  /** Ends that came without a step. */
  #news: SequenceOutput[] = [];

  /** Throws `invalid-argument`. */
  constructor(options: EngineOptions) {
    const { numBlocks, blockSize, maxSequences, maxRows, maxContext, now } = options;
    checkCount("numBlocks", numBlocks);
    checkCount("blockSize", blockSize);
    checkCount("maxSequences", maxSequences);
    checkCount("maxRows", maxRows);
    checkCount("maxContext", maxContext);
    const budgetMs = options.stepBudgetMs ?? DEFAULT_STEP_BUDGET_MS;
    if (!(budgetMs > 0)) {
      throw new QuireError("invalid-argument", `stepBudgetMs is ${budgetMs}; it must be above 0.`);
    }
    const estimate = new OutputEstimate();
    this.#options = options;
    this.#executor = options.executor;
    this.#depth = new PipelineDepth(options.executor.maxStepsInFlight ?? 1);
    this.#budget = new StepBudget({ budgetMs, maxRows });
    this.#swapPolicy = new SwapPolicy(options.blockBytes ?? 0);
    this.#watchdog = new Watchdog({ now, stallMs: options.stallMs ?? DEFAULT_STALL_MS });
    this.#scheduler = new Scheduler({
      numBlocks,
      blockSize,
      numHostBlocks: options.numHostBlocks ?? 0,
      numSlots: Math.min(maxSequences, maxRows),
      maxLogits: maxSequences,
      waitingOrder: options.waitingOrder ?? "fcfs",
      budget: this.#budget,
      swapPolicy: this.#swapPolicy,
      estimate,
      events: this.#events,
      metrics: this.#metrics,
      now,
    });
    this.#outcomes = new Outcomes({
      scheduler: this.#scheduler,
      metrics: this.#metrics,
      estimate,
      now,
    });
  }

  /** True while a request has not ended: then `step` makes progress. */
  get hasWork(): boolean {
    return this.#outcomes.requests.size > 0 || this.#news.length > 0;
  }

  /**
   * Queues a request; the queue has no limit.
   * Throws `invalid-argument`, `context-overflow`, or `kv-pool-too-small` if it could never fit.
   */
  add(request: EngineRequest): void {
    const { requests } = this.#outcomes;
    if (requests.has(request.id)) {
      throw new QuireError(
        "invalid-argument",
        `A request with the id ${request.id} has not ended yet; ids must be unique.`,
      );
    }
    const { maxSequences, maxRows } = this.#options;
    const limits = { ...this.#options, maxSequences: Math.min(maxSequences, maxRows) };
    const created = createRequest(request, limits, this.#numArrivals, this.#options.now());
    this.#numArrivals += created.sequences.length;
    this.#metrics.recordPrompt(created.promptTokens);
    requests.set(created.id, created);
    this.#scheduler.residents.waiting.push(created.sequences[0]!);
    this.#deadlines.add(created);
  }

  /**
   * Schedule, submit, postprocess: keeps the back end supplied with forward passes over a batch of all that
   * can run, and waits for the oldest one's result. Resolves to the news; empty if there is no work or only
   * prompt chunks were computed. One call at a time.
   *
   * Rejects with the back end's error if the step fails. The engine is then as after `replaceExecutor`:
   * everything waits again and nothing is lost, so the caller may abort, replace the back end or retry.
   */
  async step(): Promise<readonly SequenceOutput[]> {
    invariant(this.#call === undefined, "step() was called while a step is in flight.");
    const call = Symbol();
    this.#call = call;
    try {
      this.#endLateRequests();
      this.#submitSteps();
      const [oldest] = this.#inFlight;
      if (oldest !== undefined) {
        const result = await this.#settle(oldest);
        if (this.#call !== call) return [];
        this.#news.push(...this.#outcomes.receive(oldest.scheduled, result!));
      }
      this.#reportStalls();
      return this.#news.splice(0);
    } finally {
      if (this.#call === call) this.#call = undefined;
    }
  }

  /** Ends a request now. Returns the last output of each sequence that had not ended; none the second time. */
  abort(id: RequestId): readonly SequenceOutput[] {
    return this.#outcomes.end(this.#outcomes.requests.get(id), "abort");
  }

  /**
   * Ends one sequence now, as a matched stop string does. Undefined if it has ended already, and for beams
   * and samples that are still to be ranked.
   */
  finishSequence(
    id: RequestId,
    index: number,
    reason: FinishReason = "stop",
  ): SequenceOutput | undefined {
    const request = this.#outcomes.requests.get(id);
    const sequence = request?.sequences[index];
    if (sequence === undefined || sequence.status === "finished") return undefined;
    if (request?.beams !== undefined || request?.withheld !== undefined) return undefined;
    return this.#outcomes.finish(sequence, reason)[0];
  }

  /**
   * Takes all blocks and slots back; every sequence is recomputed and goes on with the same tokens.
   * Samples of steps in flight are dropped and drawn again.
   */
  preemptAll(): void {
    this.#scheduler.preemptAll("caller");
  }

  /**
   * Goes on with another back end of the same sizes whose KV pool is empty, as after a lost device.
   * Steps in flight on the old one are forgotten: their `step()` resolves without them, even if they fail.
   */
  replaceExecutor(executor: StepExecutor): void {
    this.#executor = executor;
    this.#call = undefined;
    this.#depth = new PipelineDepth(executor.maxStepsInFlight ?? 1);
    this.#dropKvPool();
  }

  /** The session has ended: what was kept for it is evicted first. */
  endSession(session: string): void {
    this.#scheduler.kvCache.endSession(session);
  }

  /** Forgets all prefixes, pinned ones too; false, and nothing done, while sequences hold blocks. */
  resetPrefixCache(): boolean {
    const isReset = this.#scheduler.kvCache.resetPrefixes();
    if (isReset) this.#metrics.recordPrefixReset();
    return isReset;
  }

  /** The latest preemptions, swaps, evictions, deadlines and stalls, oldest first. */
  events(): readonly EngineEvent[] {
    return [...this.#events];
  }

  stats(): EngineStats {
    const { kvCache, numSteps, residents } = this.#scheduler;
    const { pool, numCachedBlocks } = kvCache;
    const metrics = this.#metrics.snapshot();
    return {
      running: residents.running.size,
      waiting: residents.waiting.size,
      swapped: residents.numSwapped,
      steps: numSteps,
      rows: metrics.iteration_tokens_total.sum,
      preemptions: residents.numPreemptions,
      swaps: residents.numSwaps,
      tokensLost: residents.numTokensLost,
      kvBlocksTotal: pool.numBlocks,
      kvBlocksUsed: pool.numUsed,
      kvBlocksPeak: pool.peakUsed,
      kvBlocksCached: numCachedBlocks,
      prefixCacheQueries: metrics.prefix_cache_queries,
      prefixCacheHits: metrics.prefix_cache_hits,
      promptTokens: metrics.prompt_tokens,
      generationTokens: metrics.generation_tokens,
      msPerStep: this.#budget.msPerStep,
      msPerRow: this.#budget.msPerRow,
      stepsInFlight: this.#depth.depth,
      stalled: this.#stalls(),
      metrics,
    };
  }

  /** O(blocks of all that run): for views and experiments. */
  kvUsage(): KvUsage {
    const { kvCache, residents } = this.#scheduler;
    return measureKvUsage(residents, kvCache, this.#options.blockSize);
  }

  /** Throws `internal` if the books are wrong. Walks everything: for tests and development. */
  checkIntegrity(): void {
    const { residents } = this.#scheduler;
    residents.checkIntegrity();
    let numOpen = 0;
    for (const { id, sequences, beams, numUnfinished } of this.#outcomes.requests.values()) {
      const all = beams?.live ?? sequences;
      const open = all.filter(({ status }) => status !== "finished");
      const expected = beams === undefined ? open.length : 1;
      invariant(
        expected === numUnfinished && open.length > 0,
        `Request ${id} has ${open.length} open sequences and counts ${numUnfinished}.`,
      );
      numOpen += open.filter(({ forksFrom }) => forksFrom === undefined).length;
    }
    invariant(
      numOpen === residents.running.size + residents.waiting.size,
      `${numOpen} sequences are open, ${residents.running.size} run and ${residents.waiting.size} wait.`,
    );
  }

  /** Steps that can be scheduled without the results of those in flight, as many as the pipeline takes. */
  #submitSteps(): void {
    while (this.#inFlight.length < this.#depth.depth) {
      const scheduled = this.#scheduler.schedule();
      if (scheduled === undefined) return;
      this.#metrics.recordStep(scheduled.step.rows.length);
      const submittedMs = this.#options.now();
      const result = submitStep(this.#executor, scheduled.step);
      this.#inFlight.push({ scheduled, result, submittedMs });
    }
  }

  /** Undefined if the back end was replaced meanwhile. */
  async #settle(oldest: StepInFlight): Promise<StepResult | undefined> {
    try {
      const result = await oldest.result;
      if (this.#inFlight[0] !== oldest) return undefined;
      checkResult(oldest.scheduled.step, result);
      this.#inFlight.shift();
      this.#learn(oldest);
      return result;
    } catch (error) {
      if (this.#inFlight[0] !== oldest) return undefined;
      this.#dropKvPool();
      throw error;
    }
  }

  #learn({ scheduled: { step }, submittedMs }: StepInFlight): void {
    const nowMs = this.#options.now();
    const ms = nowMs - Math.max(submittedMs, this.#lastResultMs);
    const numRows = step.rows.length;
    const numSwaps = step.swapOuts.length + step.swapIns.length;
    this.#lastResultMs = nowMs;
    this.#scheduler.numCompletedSteps = step.id;
    if (numSwaps === 0) {
      this.#budget.record(numRows, ms);
      this.#depth.record(numRows, ms);
    } else {
      const { msPerStep, msPerRow } = this.#budget;
      this.#swapPolicy.record(numSwaps, ms - msPerStep - numRows * msPerRow);
    }
  }

  #endLateRequests(): void {
    const timeMs = this.#options.now();
    const stepId = this.#scheduler.numSteps;
    for (const request of this.#deadlines.takeLate(timeMs)) {
      if (this.#outcomes.requests.get(request.id) !== request) continue;
      const { id: requestId } = request;
      const outputs = this.#outcomes.end(request, "deadline");
      this.#news.push(...outputs);
      for (const { index, tokens } of outputs) {
        const known = request.sequences[index]?.tokens.length ?? request.promptTokens;
        const outputTokens = Math.max(tokens.length, known - request.promptTokens);
        this.#events.push({ kind: "deadline", timeMs, stepId, requestId, index, outputTokens });
      }
    }
  }

  /** Of those who run, and of the first in line: behind it waiting is no fault. */
  #stalls(): readonly Stall[] {
    const { running, waiting } = this.#scheduler.residents;
    const first = waiting.first === undefined ? [] : [waiting.first];
    return this.#watchdog.stalled([...running, ...first]);
  }

  #reportStalls(): void {
    if (!this.#watchdog.takeTurn()) return;
    for (const stall of this.#stalls()) {
      const { requestId, index } = stall;
      const request = this.#outcomes.requests.get(requestId);
      const sequence = request?.beams?.live[index] ?? request?.sequences[index];
      this.#events.push({
        kind: "stall",
        timeMs: this.#options.now(),
        stepId: this.#scheduler.numSteps,
        ...stall,
        why: sequence === undefined ? "it has ended" : this.#scheduler.lackOf(sequence),
      });
    }
  }

  /**
   * What the KV pool holds is lost, or blocks already offered for sharing were never written: everyone
   * recomputes and no prefix is trusted. Steps in flight are void.
   */
  #dropKvPool(): void {
    this.#inFlight = [];
    this.#scheduler.preemptAll("device");
    this.#scheduler.kvCache.clear();
  }
}
