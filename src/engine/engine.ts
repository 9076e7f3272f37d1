import { invariant, QuireError } from "../errors.ts";
import type { EngineRequest } from "./engineRequest.ts";
import { type EngineStats, type KvUsage, measureKvUsage } from "./engineStats.ts";
import { type EngineEvent, EventLog } from "./eventLog.ts";
import { EngineMetrics } from "./metrics.ts";
import type { WaitingOrder } from "./newcomers.ts";
import { Outcomes } from "./outcomes.ts";
import { OutputEstimate } from "./outputEstimate.ts";
import { createRequest } from "./request.ts";
import { checkCount } from "./requestChecks.ts";
import { Scheduler } from "./scheduler.ts";
import type { FinishReason, RequestId } from "./sequence.ts";
import type { SequenceOutput } from "./sequenceOutput.ts";
import type { StepExecutor } from "./step.ts";
import { StepBudget } from "./stepBudget.ts";
import { type FinishedStep, type SetTimer, StepsInFlight } from "./stepsInFlight.ts";
import { lacksHostMemory } from "./submitStep.ts";
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
  /**
   * Looks after deadlines and stalls while a step is waited for: `setTimeout`, say. Default: none, and a
   * back end that does not answer delays both until it does.
   */
  readonly setTimer?: SetTimer;
  /** Default DEFAULT_STEP_BUDGET_MS. */
  readonly stepBudgetMs?: number;
  /** Default "fcfs". */
  readonly waitingOrder?: WaitingOrder;
  /** Default DEFAULT_STALL_MS. */
  readonly stallMs?: number;
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
  readonly #inFlight: StepsInFlight;
  /** The call of `step` under way; a replaced back end's is none any more. */
  #call: symbol | undefined;
  #numArrivals = 0;
  /** Ends that came without a step. */
  #news: SequenceOutput[] = [];

  /** Throws `invalid-argument`. */
  constructor(options: EngineOptions) {
    const { numBlocks, blockSize, maxSequences, maxRows, maxContext, now, executor } = options;
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
    this.#inFlight = new StepsInFlight({ executor, now, setTimer: options.setTimer });
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
    const limits = { ...this.#options, maxSequences: this.#scheduler.residents.numSlots };
    const created = createRequest(request, limits, this.#numArrivals, this.#options.now());
    this.#numArrivals += created.sequences.length;
    this.#metrics.recordPrompt(created.promptTokens);
    this.#outcomes.add(created);
    this.#inFlight.wake(); // its deadline may be the next
    this.#scheduler.residents.waiting.push(created.sequences[0]!);
  }

  /**
   * Schedule, submit, postprocess: keeps the back end supplied with forward passes over a batch of all that
   * can run, and waits for the oldest one's result, or until a deadline passes. Resolves to the news; empty
   * if there is no work or only prompt chunks were computed. One call at a time.
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
      while (this.#inFlight.oldest !== undefined) {
        const finished = await this.#settle(call);
        if (this.#call !== call) return [];
        if (finished !== undefined) {
          this.#news.push(...this.#outcomes.receive(finished.scheduled, finished.result));
          break;
        }
        this.#endLateRequests();
        this.#reportStalls();
        if (this.#news.length > 0) break;
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
    this.#call = undefined;
    this.#inFlight.replaceExecutor(executor);
    this.#budget.reset();
    this.#dropKvPool();
  }

  /** The session has ended: what was kept for it is evicted first. Its requests go on, and keep nothing. */
  endSession(session: string): void {
    this.#outcomes.endSession(session);
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
    const { pool, numCachedBlocks, numKeptBlocks } = kvCache;
    const metrics = this.#metrics.snapshot();
    return {
      running: residents.running.size,
      waiting: residents.waiting.size,
      swapped: residents.numSwapped,
      maxSequences: residents.numSlots,
      steps: numSteps,
      rows: metrics.iteration_tokens_total.sum,
      preemptions: residents.numPreemptions,
      swaps: residents.numSwaps,
      tokensLost: residents.numTokensLost,
      kvBlocksTotal: pool.numBlocks,
      kvBlocksUsed: pool.numUsed,
      kvBlocksPeak: pool.peakUsed,
      kvBlocksCached: numCachedBlocks,
      kvBlocksKept: numKeptBlocks,
      prefixCacheQueries: metrics.prefix_cache_queries,
      prefixCacheHits: metrics.prefix_cache_hits,
      promptTokens: metrics.prompt_tokens,
      generationTokens: metrics.generation_tokens,
      msPerStep: this.#budget.msPerStep,
      msPerRow: this.#budget.msPerRow,
      stepsInFlight: this.#inFlight.depth,
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
    while (this.#inFlight.hasRoom) {
      const scheduled = this.#scheduler.schedule();
      if (scheduled === undefined) return;
      this.#metrics.recordStep(scheduled.step.rows.length);
      this.#inFlight.submit(scheduled);
    }
  }

  /**
   * Waits for the oldest step. Undefined if it is time to look after other things, if the back end was
   * replaced meanwhile, or if it had no host memory for swaps: they end then.
   */
  async #settle(call: symbol): Promise<FinishedStep | undefined> {
    const { step } = this.#inFlight.oldest!;
    try {
      const finished = await this.#inFlight.receive(this.#msToTurn());
      if (finished !== undefined && this.#call === call) this.#learn(finished);
      return finished;
    } catch (error) {
      if (this.#call !== call) return undefined;
      if (!lacksHostMemory(step, error)) {
        this.#dropKvPool();
        throw error;
      }
      while (!(await this.#inFlight.settle(this.#msToTurn()))) {
        if (this.#call !== call) return undefined;
        this.#endLateRequests();
        this.#reportStalls();
      }
      this.#inFlight.clear();
      this.#scheduler.stopSwapping(error.message);
      return undefined;
    }
  }

  #learn({ scheduled: { step, load }, ms }: FinishedStep): void {
    const numSwaps = step.swapOuts.length + step.swapIns.length;
    this.#scheduler.numCompletedSteps = step.id;
    if (numSwaps === 0) this.#budget.record(load, ms);
    else this.#swapPolicy.record(numSwaps, ms, this.#budget.msOf(load));
  }

  /** When to look after deadlines and stalls, whether the back end answers or not. */
  #msToTurn(): number {
    const toDeadline = this.#outcomes.deadlines.nextMs - this.#options.now();
    return Math.max(0, Math.min(toDeadline, this.#watchdog.turnMs));
  }

  #endLateRequests(): void {
    const timeMs = this.#options.now();
    const stepId = this.#scheduler.numSteps;
    for (const request of this.#outcomes.deadlines.takeLate(timeMs)) {
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
    this.#inFlight.clear();
    this.#scheduler.preemptAll("device");
    this.#scheduler.kvCache.clear();
  }
}
