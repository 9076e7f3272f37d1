import { expect } from "vitest";
import { Engine, type EngineOptions } from "../engine.ts";
import type { EngineRequest } from "../engineRequest.ts";
import { GREEDY, type SamplingParams } from "../sampling.ts";
import type { FinishReason, RequestId } from "../sequence.ts";
import type { SequenceOutput } from "../sequenceOutput.ts";
import type { TokenScore } from "../step.ts";
import { expectedAnswers } from "./expectedAnswers.ts";
import {
  type ExpectedAnswer,
  expectedScores,
  PagedExecutor,
  type PagedExecutorOptions,
} from "./pagedExecutor.ts";
import { TimedExecutor, type Timing } from "./timedExecutor.ts";

/** What a caller has received of one sequence. */
export interface Received {
  readonly request: EngineRequest;
  readonly index: number;
  readonly tokens: number[];
  finishReason: FinishReason | undefined;
  stopToken: number | undefined;
  cachedTokens: number;
  /** Of the first output that had some. */
  promptScores: readonly TokenScore[] | undefined;
  numOutputs: number;
}

type Sizes = Pick<
  EngineOptions,
  | "numBlocks"
  | "blockSize"
  | "maxSequences"
  | "maxRows"
  | "maxContext"
  | "endTokens"
  | "numHostBlocks"
  | "waitingOrder"
  | "stallMs"
> &
  Pick<PagedExecutorOptions, "maxStepsInFlight" | "copyPeriod"> & {
    /** What steps cost; without it the clock moves by one whenever somebody looks at it. */
    readonly timing?: Timing;
  };

const DEFAULT_SIZES: Sizes = {
  numBlocks: 64,
  blockSize: 4,
  maxSequences: 8,
  maxRows: 64,
  maxContext: 100,
  endTokens: new Set([0]),
};

export function withSeed(seed: number, fields: Partial<SamplingParams> = {}): SamplingParams {
  return { ...GREEDY, temperature: 1, ...fields, seed: [seed, 0] };
}

/** `count` token ids, the same for the same `first`. */
export function tokens(count: number, first = 1): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** An engine on a `PagedExecutor`, with a record of all that it delivered. */
export class EngineWorld {
  readonly sizes: Sizes;
  readonly engine: Engine;
  executor: PagedExecutor;
  readonly received = new Map<string, Received>();
  readonly #aborted = new Set<RequestId>();
  readonly #expected = new Map<EngineRequest, ReturnType<typeof expectedAnswers>>();
  clockMs = 0;
  readonly #timers = new Set<{ readonly dueMs: number; readonly callback: () => void }>();

  constructor(sizes: Partial<Sizes> = {}) {
    this.sizes = { ...DEFAULT_SIZES, ...sizes };
    this.executor = new PagedExecutor(this.sizes);
    const { timing } = this.sizes;
    this.engine = new Engine({
      ...this.sizes,
      executor:
        timing === undefined ? this.executor : new TimedExecutor(this.executor, timing, this),
      now: () => (timing === undefined ? (this.clockMs += 1) : this.clockMs),
      setTimer: (callback, ms) => {
        const timer = { dueMs: this.clockMs + ms, callback };
        this.#timers.add(timer);
        return () => this.#timers.delete(timer);
      },
    });
  }

  add(id: RequestId, promptTokens: readonly number[], fields: Partial<EngineRequest> = {}): void {
    const request: EngineRequest = {
      id,
      promptTokens,
      n: 1,
      maxTokens: 8,
      stopTokenIds: [],
      sampling: withSeed(1),
      ...fields,
    };
    this.engine.add(request);
    for (let index = 0; index < request.n; index++) {
      this.received.set(`${id}/${index}`, {
        request,
        index,
        tokens: [],
        finishReason: undefined,
        stopToken: undefined,
        cachedTokens: 0,
        promptScores: undefined,
        numOutputs: 0,
      });
    }
  }

  of(id: RequestId, index = 0): Received {
    const received = this.received.get(`${id}/${index}`);
    if (received === undefined) throw new Error(`There is no sequence ${id}/${index}.`);
    return received;
  }

  note(outputs: readonly (SequenceOutput | undefined)[]): void {
    for (const output of outputs) {
      if (output === undefined) continue;
      const received = this.of(output.requestId, output.index);
      expect(received.finishReason).toBeUndefined(); // nothing comes after the last output
      received.tokens.push(...output.tokens);
      received.finishReason = output.finishReason;
      received.stopToken = output.stopToken;
      received.cachedTokens = output.cachedTokens;
      if (output.promptScores !== undefined) {
        expect(received.numOutputs).toBe(0);
        received.promptScores = output.promptScores;
      }
      received.numOutputs += 1;
      expect(output.promptTokens).toBe(received.request.promptTokens.length);
    }
  }

  async step(): Promise<void> {
    this.note(await this.engine.step());
    this.engine.checkIntegrity();
  }

  /** Steps until the executor's pending failure comes, or no step meets it. */
  async stepUntilFailure(error: Error): Promise<void> {
    const { executor } = this;
    const before = executor.steps.length;
    while (
      this.engine.hasWork &&
      (executor.failure !== undefined || executor.steps.length === before || executor.hasFailed)
    ) {
      try {
        await this.step();
      } catch (found) {
        expect(found).toBe(error);
        executor.hasFailed = false;
        return;
      }
    }
    executor.failure = undefined;
  }

  async run(maxSteps = 10_000): Promise<void> {
    for (let i = 0; this.engine.hasWork; i++) {
      if (i === maxSteps) throw new Error(`The engine still has work after ${maxSteps} steps.`);
      await this.step();
    }
  }

  abort(id: RequestId): void {
    this.#aborted.add(id);
    this.note(this.engine.abort(id));
  }

  /** As after a lost device: a new back end with a new, garbage-filled pool. */
  replaceExecutor(): void {
    this.executor = new PagedExecutor(this.sizes);
    this.engine.replaceExecutor(this.executor);
  }

  get numTimers(): number {
    return this.#timers.size;
  }

  /** Time passes while a step is waited for: timers go off, and the engine does what it does then. */
  async advance(ms: number): Promise<void> {
    const endMs = this.clockMs + ms;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve)); // the engine does what it has to do now
      const [next] = [...this.#timers].sort((a, b) => a.dueMs - b.dueMs);
      if (next === undefined || next.dueMs > endMs) break;
      this.clockMs = Math.max(this.clockMs, next.dueMs);
      this.#timers.delete(next);
      next.callback();
    }
    this.clockMs = endMs;
  }

  /** The machine sleeps while a step is waited for: no timer goes off until it wakes. */
  async sleep(ms: number): Promise<void> {
    this.clockMs += ms;
    await this.advance(0);
  }

  /** What each of the request's answers must be, computed alone and without paging. */
  expected({ request, index }: Received): Pick<ExpectedAnswer, "tokens" | "finishReason"> {
    let answers = this.#expected.get(request);
    if (answers === undefined) {
      answers = expectedAnswers(request, this.sizes);
      this.#expected.set(request, answers);
    }
    return answers[index]!;
  }

  /** Every sequence that ended by itself said exactly what it says alone; others a part of it. */
  checkDelivered(): void {
    for (const received of this.received.values()) {
      // Which answers are the best of those that were cut short is another question.
      const { id, deadlineMs } = received.request;
      const wasCutShort = this.#aborted.has(id) || deadlineMs !== undefined;
      if (isRanked(received.request) && wasCutShort) continue;
      const expected = this.expected(received);
      const { tokens, finishReason } = expected;
      const hasEnded = received.finishReason === "length" || received.finishReason === "stop";
      const wasCut = received.finishReason === "stop" && received.stopToken === undefined;
      if (hasEnded && !wasCut) {
        expect(received).toMatchObject({ tokens, finishReason });
      } else if (!isRanked(received.request)) {
        expect(expected.tokens.slice(0, received.tokens.length)).toEqual(received.tokens);
      }
      this.#checkScores(received);
    }
  }
  /** Scores come with the first output: all of them, once, and of sample 0 only. */
  #checkScores({ request, index, promptScores, tokens, finishReason }: Received): void {
    const { promptTokens, promptLogprobs } = request;
    const isComputed = tokens.length > 0 || finishReason === "length";
    const isWanted = promptLogprobs !== undefined && index === 0;
    if (isWanted && isComputed) expect(promptScores).toBeDefined();
    if (promptScores === undefined) return;
    expect(isWanted).toBe(true);
    expect(promptScores).toEqual(expectedScores(promptTokens, promptLogprobs!));
  }
}

/** Answers that are known only when all have ended: a part of one is no part of the other. */
function isRanked({ n, bestOf = n, beam }: EngineRequest): boolean {
  return bestOf > n || beam !== undefined;
}
