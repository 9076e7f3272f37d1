import { PipelineDepth } from "./pipelineDepth.ts";
import type { StepExecutor, StepResult } from "./step.ts";
import type { ScheduledStep } from "./stepBuilder.ts";
import { checkResult, submitStep } from "./submitStep.ts";

/** Calls back once, after so many milliseconds of the engine's clock or a little later. Returns what cancels it. */
export type SetTimer = (callback: () => void, ms: number) => () => void;

export interface StepsInFlightOptions {
  readonly executor: StepExecutor;
  /** Milliseconds of any monotonic clock. */
  readonly now: () => number;
  /** Without it a back end is waited for without end. */
  readonly setTimer: SetTimer | undefined;
}

interface StepInFlight {
  readonly scheduled: ScheduledStep;
  readonly result: Promise<StepResult>;
  readonly submittedMs: number;
}

/** A step whose result has come. */
export interface FinishedStep {
  readonly scheduled: ScheduledStep;
  readonly result: StepResult;
  /** Between the result before it, or its submission if that was later, and its own. */
  readonly ms: number;
}

/** The steps that the back end was given and has not answered, and the wait for its answers. */
export class StepsInFlight {
  readonly #now: () => number;
  readonly #setTimer: SetTimer | undefined;
  #executor: StepExecutor;
  #depth: PipelineDepth;
  /** In order of submission. */
  #steps: StepInFlight[] = [];
  #lastResultMs = 0;
  #release = (): void => {};

  constructor(options: StepsInFlightOptions) {
    this.#now = options.now;
    this.#setTimer = options.setTimer;
    this.#executor = options.executor;
    this.#depth = new PipelineDepth(options.executor.maxStepsInFlight ?? 1);
  }

  get oldest(): ScheduledStep | undefined {
    return this.#steps[0]?.scheduled;
  }

  /** True if one more step pays. */
  get hasRoom(): boolean {
    return this.#steps.length < this.#depth.depth;
  }

  /** Steps that are kept in flight. */
  get depth(): number {
    return this.#depth.depth;
  }

  submit(scheduled: ScheduledStep): void {
    const submittedMs = this.#now();
    const result = submitStep(this.#executor, scheduled.step);
    this.#steps.push({ scheduled, result, submittedMs });
  }

  /**
   * The oldest step, as soon as its result is there; undefined after `ms` or a `wake`, or if it is void. One
   * wait at a time. Rejects with the back end's error, and the step is still the oldest then.
   */
  async receive(ms: number): Promise<FinishedStep | undefined> {
    const oldest = this.#steps[0]!;
    const result = await this.#wait(oldest.result, ms);
    if (result === undefined || this.#steps[0] !== oldest) return undefined;
    const { scheduled, submittedMs } = oldest;
    const { step, load } = scheduled;
    checkResult(step, result);
    this.#steps.shift();
    const nowMs = this.#now();
    const stepMs = Math.max(0, nowMs - Math.max(submittedMs, this.#lastResultMs));
    this.#lastResultMs = nowMs;
    const isSwapping = step.swapOuts.length + step.swapIns.length > 0;
    if (!isSwapping) this.#depth.record(load.rows, stepMs);
    return { scheduled, result, ms: stepMs };
  }

  /** True once all have ended, well or badly; false after `ms`, a `wake` or a `clear`. */
  async settle(ms: number): Promise<boolean> {
    const all = Promise.allSettled(this.#steps.map(({ result }) => result));
    return (await this.#wait(all, ms)) !== undefined;
  }

  /** Ends the present wait, if there is one, as if its time were over. */
  wake(): void {
    this.#release();
  }

  /** All are void: nobody waits for them any more, whatever becomes of them. */
  clear(): void {
    this.#steps = [];
    this.#release();
  }

  /** Further steps go to another back end; those in flight are void. */
  replaceExecutor(executor: StepExecutor): void {
    this.#executor = executor;
    this.#depth = new PipelineDepth(executor.maxStepsInFlight ?? 1);
    this.clear();
  }

  /** Undefined after `ms`, or if it is released. */
  async #wait<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
    let cancel: (() => void) | undefined;
    const released = new Promise<undefined>((resolve) => {
      this.#release = () => resolve(undefined);
      cancel = this.#setTimer?.(this.#release, ms);
    });
    try {
      return await Promise.race([promise, released]);
    } finally {
      cancel?.();
    }
  }
}
