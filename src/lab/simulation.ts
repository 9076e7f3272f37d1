import { invariant } from "../errors.ts";
import { Histogram } from "./histogram.ts";
import type { KvUsage, System } from "./system.ts";
import type { LabRequest, Trace } from "./workloads.ts";

export interface SimulationOptions {
  /** Requests that arrive before are run but not counted. The paper's warm-up is 60 s. Default 0. */
  readonly warmupMs?: number;
  /**
   * Ends the run as soon as the mean normalized latency is sure to be above this: seconds a token.
   * Default: never.
   */
  readonly giveUpAbove?: number;
  /**
   * When memory, batch and throughput are measured. "queue": while requests wait, after a fifth has
   * finished, which is saturation. Default "all".
   */
  readonly window?: "all" | "queue";
  /** Collects time to first token and time between tokens. Default false. */
  readonly times?: boolean;
}

/** Averages over the window's time. */
export interface Averages extends KvUsage {
  /** Requests in a step. */
  readonly batchSize: number;
}

export interface RunMetrics {
  /** True if the run was given up: only `normalizedLatency` (Infinity) means something. */
  readonly overloaded: boolean;
  /** Seconds a token: mean over sequences of (finish - arrival) / output length. */
  readonly normalizedLatency: number;
  /** Window: requests finished a second. */
  readonly throughput: number;
  readonly steps: number;
  readonly simulatedMs: number;
  readonly averages: Averages;
  readonly timeToFirstToken: Histogram;
  readonly timeBetweenTokens: Histogram;
}

/** Between two looks at how late unfinished requests are. */
const STEPS_BETWEEN_CHECKS = 512;

/** Runs a trace through a system, on a clock of its own, until all is done. */
export async function simulate(
  system: System,
  trace: Trace,
  options: SimulationOptions = {},
): Promise<RunMetrics> {
  const run = new Run(trace, options);
  let nextArrival = 0;
  let nowMs = 0;
  for (;;) {
    while (nextArrival < trace.length && trace[nextArrival]!.arrivalMs <= nowMs) {
      system.add(trace[nextArrival]!);
      nextArrival += 1;
    }
    if (!system.hasWork) {
      if (nextArrival === trace.length) return run.metrics(nowMs, false);
      nowMs = trace[nextArrival]!.arrivalMs;
      continue;
    }
    const step = system.step(nowMs, run);
    const elapsedMs = typeof step === "number" ? step : await step;
    invariant(elapsedMs > 0, `A step of ${system.id} took ${elapsedMs} ms.`);
    nowMs += elapsedMs;
    run.endStep(system, nowMs, elapsedMs);
    if (run.steps % STEPS_BETWEEN_CHECKS === 0 && run.isHopeless(nowMs, nextArrival)) {
      return run.metrics(nowMs, true);
    }
  }
}

class Run {
  steps = 0;
  readonly #trace: Trace;
  readonly #warmupMs: number;
  readonly #giveUpAbove: number;
  readonly #window: "all" | "queue";
  readonly #times: boolean;
  /** Reported in the present step. */
  readonly #tokens: number[] = [];
  readonly #finished: LabRequest[] = [];
  readonly #isFinished: Uint8Array;
  /** By sequence: when its last token came; -1 before the first. */
  readonly #lastTokenMs: Float64Array;
  readonly #requestOf: Int32Array;
  readonly #timeToFirstToken = new Histogram();
  readonly #timeBetweenTokens = new Histogram();
  #numFinished = 0;
  #firstUnfinished = 0;
  /** Sequences that count for the latency, and the sum of those that are done. */
  readonly #numMeasured: number;
  #latencySum = 0;
  readonly #sums = { ms: 0, finished: 0, batchSize: 0, tokenStates: 0, reserved: 0, internal: 0 };
  #logicalBlocks = 0;
  #physicalBlocks = 0;
  #total = 0;

  constructor(trace: Trace, options: SimulationOptions) {
    this.#trace = trace;
    this.#warmupMs = options.warmupMs ?? 0;
    this.#giveUpAbove = options.giveUpAbove ?? Number.POSITIVE_INFINITY;
    this.#window = options.window ?? "all";
    this.#times = options.times ?? false;
    this.#isFinished = new Uint8Array(trace.length);
    const last = trace.at(-1);
    const numSequences = last === undefined ? 0 : last.firstSequence + last.width;
    this.#lastTokenMs = new Float64Array(this.#times ? numSequences : 0).fill(-1);
    this.#requestOf = new Int32Array(this.#times ? numSequences : 0);
    let numMeasured = 0;
    for (const request of trace) {
      if (this.#counts(request)) numMeasured += request.width;
      if (!this.#times) continue;
      const { firstSequence, width } = request;
      this.#requestOf.fill(request.index, firstSequence, firstSequence + width);
    }
    this.#numMeasured = numMeasured;
  }

  token(sequence: number): void {
    if (this.#times) this.#tokens.push(sequence);
  }

  finish(request: LabRequest): void {
    this.#finished.push(request);
  }

  endStep(system: System, nowMs: number, elapsedMs: number): void {
    this.steps += 1;
    for (const request of this.#finished) {
      this.#isFinished[request.index] = 1;
      if (this.#counts(request)) {
        this.#latencySum += request.width * latencyAt(request, nowMs);
      }
    }
    this.#numFinished += this.#finished.length;
    for (const sequence of this.#tokens) this.#recordToken(sequence, nowMs);
    const isMeasured =
      this.#window === "all" ||
      (system.numWaiting > 0 && this.#numFinished * 5 >= this.#trace.length);
    if (isMeasured) this.#measure(system, elapsedMs);
    this.#tokens.length = 0;
    this.#finished.length = 0;
  }

  /** Whether the mean latency must end above the limit: what has finished, and what waits already. */
  isHopeless(nowMs: number, numArrived: number): boolean {
    if (this.#giveUpAbove === Number.POSITIVE_INFINITY) return false;
    let sum = this.#latencySum;
    while (this.#isFinished[this.#firstUnfinished] === 1) this.#firstUnfinished += 1;
    for (let i = this.#firstUnfinished; i < numArrived; i++) {
      const request = this.#trace[i]!;
      if (this.#isFinished[i] === 1 || !this.#counts(request)) continue;
      sum += request.width * latencyAt(request, nowMs);
    }
    return sum > this.#giveUpAbove * this.#numMeasured;
  }

  metrics(nowMs: number, overloaded: boolean): RunMetrics {
    const { ms, finished, batchSize, tokenStates, reserved, internal } = this.#sums;
    const time = ms === 0 ? 1 : ms;
    return {
      overloaded,
      normalizedLatency: overloaded
        ? Number.POSITIVE_INFINITY
        : this.#latencySum / Math.max(1, this.#numMeasured),
      throughput: (finished / time) * 1000,
      steps: this.steps,
      simulatedMs: nowMs,
      averages: {
        total: this.#total,
        batchSize: batchSize / time,
        tokenStates: tokenStates / time,
        reserved: reserved / time,
        internal: internal / time,
        logicalBlocks: this.#logicalBlocks / time,
        physicalBlocks: this.#physicalBlocks / time,
      },
      timeToFirstToken: this.#timeToFirstToken,
      timeBetweenTokens: this.#timeBetweenTokens,
    };
  }

  #counts(request: LabRequest): boolean {
    return request.arrivalMs >= this.#warmupMs;
  }

  #recordToken(sequence: number, nowMs: number): void {
    const lastMs = this.#lastTokenMs[sequence]!;
    this.#lastTokenMs[sequence] = nowMs;
    const request = this.#trace[this.#requestOf[sequence]!]!;
    if (!this.#counts(request)) return;
    if (lastMs < 0) this.#timeToFirstToken.add(nowMs - request.arrivalMs);
    else this.#timeBetweenTokens.add(nowMs - lastMs);
  }

  #measure({ kv, batchSize }: System, elapsedMs: number): void {
    const sums = this.#sums;
    sums.ms += elapsedMs;
    sums.finished += this.#finished.length;
    sums.batchSize += elapsedMs * batchSize;
    sums.tokenStates += elapsedMs * kv.tokenStates;
    sums.reserved += elapsedMs * kv.reserved;
    sums.internal += elapsedMs * kv.internal;
    this.#logicalBlocks += elapsedMs * kv.logicalBlocks;
    this.#physicalBlocks += elapsedMs * kv.physicalBlocks;
    this.#total = kv.total;
  }
}

/** Seconds a token if all of the request's sequences end now. */
function latencyAt(request: LabRequest, nowMs: number): number {
  return (nowMs - request.arrivalMs) / 1000 / request.outputTokens;
}
