import type { EngineRequest } from "../engineRequest.ts";
import { EventLog } from "../eventLog.ts";
import { EngineMetrics } from "../metrics.ts";
import type { WaitingOrder } from "../newcomers.ts";
import { Outcomes } from "../outcomes.ts";
import { OutputEstimate } from "../outputEstimate.ts";
import { createRequest } from "../request.ts";
import { GREEDY } from "../sampling.ts";
import { Scheduler } from "../scheduler.ts";
import type { FinishReason, Sequence } from "../sequence.ts";
import type { Step } from "../step.ts";
import { StepBudget } from "../stepBudget.ts";
import type { ScheduledStep } from "../stepBuilder.ts";
import { SwapPolicy } from "../swapPolicy.ts";

interface SchedulerWorldOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly numHostBlocks: number;
  readonly maxSequences: number;
  readonly maxRows: number;
  readonly waitingOrder: WaitingOrder;
  /** What a row is believed to cost. Moving a block is believed to be free, so above 0 victims are swapped. */
  readonly msPerRow: number;
  /** Tokens that answers are believed to have: admission keeps blocks free for them. */
  readonly expectedOutput: number;
}

const DEFAULTS: SchedulerWorldOptions = {
  numBlocks: 10,
  blockSize: 16,
  numHostBlocks: 0,
  maxSequences: 8,
  maxRows: 1024,
  waitingOrder: "fcfs",
  msPerRow: 0,
  expectedOutput: 1,
};

/** What may follow any token, the best first. */
export const CANDIDATES = Array.from({ length: 20 }, (_, i) => ({
  token: 10 + i,
  logprob: -1 - i,
}));

/** A scheduler whose steps may use all of `maxRows`, driven by hand: no back end, results are made up. */
export class SchedulerWorld {
  readonly scheduler: Scheduler;
  readonly outcomes: Outcomes;
  readonly events = new EventLog();
  readonly metrics = new EngineMetrics();
  clockMs = 0;
  readonly #options: SchedulerWorldOptions;
  #numArrivals = 0;

  constructor(options: Partial<SchedulerWorldOptions> = {}) {
    this.#options = { ...DEFAULTS, ...options };
    const { maxSequences, maxRows, msPerRow } = this.#options;
    const budget = new StepBudget({ budgetMs: 2 ** 40, maxRows });
    budget.record({ rows: 2 ** 20, positions: 0 }, 2 ** 20 * msPerRow);
    const estimate = new OutputEstimate();
    for (let i = 0; i < 40; i++) estimate.record(this.#options.expectedOutput);
    const { events, metrics } = this;
    const now = () => this.clockMs;
    this.scheduler = new Scheduler({
      ...this.#options,
      numSlots: Math.min(maxSequences, maxRows),
      maxLogits: maxSequences,
      budget,
      swapPolicy: new SwapPolicy(0),
      estimate,
      events,
      metrics,
      now,
    });
    this.outcomes = new Outcomes({ scheduler: this.scheduler, metrics, estimate, now });
  }

  get running(): readonly Sequence[] {
    return [...this.scheduler.residents.running];
  }

  get waiting(): readonly Sequence[] {
    return [...this.scheduler.residents.waiting.inOrder()];
  }

  get numFree(): number {
    return this.scheduler.kvCache.pool.numFree;
  }

  /** Adds a request; requests are numbered from 0. Returns its sequences. */
  add(promptTokens: readonly number[], fields: Partial<EngineRequest> = {}): readonly Sequence[] {
    const request = createRequest(
      {
        id: this.#numArrivals,
        promptTokens,
        n: 1,
        maxTokens: 32,
        stopTokenIds: [],
        sampling: GREEDY,
        ...fields,
      },
      { ...this.#options, numBlocks: 1000, maxContext: 10_000, endTokens: new Set() },
      this.#numArrivals,
      this.clockMs,
    );
    this.#numArrivals += request.sequences.length;
    this.outcomes.add(request);
    this.scheduler.residents.waiting.push(request.sequences[0]!);
    return request.sequences;
  }

  /** Adds a request for one sample. */
  addOne(promptTokens: readonly number[], fields: Partial<EngineRequest> = {}): Sequence {
    return this.add(promptTokens, fields)[0]!;
  }

  /** Schedules a step whose result is still to come. */
  schedule(): ScheduledStep {
    const scheduled = this.scheduler.schedule();
    if (scheduled === undefined) throw new Error("There was nothing to schedule.");
    this.scheduler.residents.checkIntegrity();
    return scheduled;
  }

  /**
   * The result of a step comes: every sample is `token`, or one after the other is. The best tokens, where
   * they are asked for, are always `CANDIDATES`.
   */
  receive(scheduled: ScheduledStep, token: number | readonly number[] = 7): void {
    const { step, samples } = scheduled;
    this.scheduler.numCompletedSteps = step.id;
    this.outcomes.receive(scheduled, {
      tokens: samples.map((_, i) => (typeof token === "number" ? token : token[i]!)),
      logprobs: samples.map(({ sequence }) => {
        const count = sequence.sampling.logprobs;
        return count === undefined ? undefined : { logprob: -1, top: CANDIDATES.slice(0, count) };
      }),
      scores: step.scores.map(() => ({ logprob: -1, rank: 1, top: [] })),
    });
    this.scheduler.residents.checkIntegrity();
  }

  /** Schedules a step and receives its result. */
  step(token = 7): Step {
    const scheduled = this.schedule();
    this.receive(scheduled, token);
    return scheduled.step;
  }

  finish(sequence: Sequence, reason: FinishReason = "stop"): void {
    this.outcomes.finish(sequence, reason);
    this.scheduler.residents.checkIntegrity();
  }

  freeBlocks(): readonly number[] {
    return this.scheduler.kvCache.pool.freeBlocks();
  }
}

/** `count` different tokens, starting with `first`. */
export function tokens(count: number, first = 0): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** Rows of each slot in a step. */
export function rowsPerSlot(step: Step): Record<number, number> {
  const counts: Record<number, number> = {};
  for (const { slot } of step.rows) counts[slot] = (counts[slot] ?? 0) + 1;
  return counts;
}

/** Positions of a sequence's rows in a step. */
export function positionsOf({ rows }: Step, { slot }: Sequence): number[] {
  return rows.filter((row) => row.slot === slot).map(({ position }) => position);
}
