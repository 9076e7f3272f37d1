import type { Plan } from "../../src/backends/ops.ts";
import { Engine, type EngineOptions } from "../../src/engine/engine.ts";
import type { EngineRequest } from "../../src/engine/engineRequest.ts";
import { GREEDY, type SamplingParams } from "../../src/engine/sampling.ts";
import type { FinishReason, RequestId } from "../../src/engine/sequence.ts";
import type { SequenceOutput } from "../../src/engine/sequenceOutput.ts";
import type {
  Step,
  StepExecutor,
  StepHandle,
  StepResult,
  TokenLogprobs,
} from "../../src/engine/step.ts";

/** What a step costs on the engine's clock: the course of a test is the same on machines of every speed. */
const MS_PER_STEP = 5;
const MS_PER_ROW = 0.5;
const MS_PER_MOVE = 0.1;

const MAX_STEPS = 5_000;

/** All that was delivered of one sequence. */
export interface Answer {
  readonly tokens: number[];
  readonly logprobs: TokenLogprobs[];
  finishReason: FinishReason | undefined;
  stopToken: number | undefined;
  cumulativeLogprob: number | undefined;
  cachedTokens: number;
}

export type DriverOptions = Pick<EngineOptions, "numBlocks" | "blockSize" | "maxSequences"> &
  Partial<Pick<EngineOptions, "numHostBlocks" | "maxContext" | "endTokens">> & {
    /** Default 1. */
    readonly maxStepsInFlight?: number;
  };

/**
 * A plan on a clock of its own: a step costs so much and so much a row, and steps in flight overlap
 * entirely, so that an engine that learns goes as deep as it may. Results come when they are asked for.
 */
class ClockedExecutor implements StepExecutor {
  readonly maxStepsInFlight: number;
  readonly steps: Step[] = [];
  mostInFlight = 0;
  nowMs = 0;
  readonly #plan: Plan;
  readonly #gates: (() => void)[] = [];

  constructor(plan: Plan, maxStepsInFlight: number) {
    this.#plan = plan;
    this.maxStepsInFlight = maxStepsInFlight;
  }

  submit(step: Step): StepHandle {
    this.steps.push(step);
    const { result } = this.#plan.submit(step);
    const opened = new Promise<void>((open) => this.#gates.push(open));
    const numInFlight = this.#gates.length;
    this.mostInFlight = Math.max(this.mostInFlight, numInFlight);
    const numMoves = step.swapOuts.length + step.swapIns.length;
    const ms = MS_PER_STEP + MS_PER_ROW * step.rows.length + MS_PER_MOVE * numMoves;
    const arrive = async (): Promise<StepResult> => {
      const [found] = await Promise.all([result, opened]);
      this.nowMs += ms / numInFlight;
      return found;
    };
    return { result: arrive() };
  }

  /** Lets the oldest step's result through. */
  open(): void {
    this.#gates.shift()?.();
  }
}

/** An engine over the first blocks of a plan's pool, with a record of its steps and of what it delivered. */
export class EngineDriver {
  readonly engine: Engine;
  readonly answers = new Map<RequestId, Answer[]>();
  readonly #executor: ClockedExecutor;

  constructor(plan: Plan, options: DriverOptions) {
    const { maxStepsInFlight = 1, maxContext = 192, endTokens = new Set<number>() } = options;
    const executor = new ClockedExecutor(plan, maxStepsInFlight);
    this.#executor = executor;
    this.engine = new Engine({
      ...options,
      executor,
      blockBytes: plan.blockBytes,
      maxRows: plan.maxRows,
      maxContext,
      endTokens,
      now: () => executor.nowMs,
    });
  }

  get steps(): readonly Step[] {
    return this.#executor.steps;
  }

  /** Most steps that were under way at once, since `deepen`. */
  get mostInFlight(): number {
    return this.#executor.mostInFlight;
  }

  /** Rows computed so far. */
  get numRows(): number {
    return this.steps.reduce((sum, { rows }) => sum + rows.length, 0);
  }

  add(request: EngineRequest): void {
    this.engine.add(request);
    this.answers.set(
      request.id,
      Array.from({ length: request.n }, () => ({
        tokens: [],
        logprobs: [],
        finishReason: undefined,
        stopToken: undefined,
        cumulativeLogprob: undefined,
        cachedTokens: 0,
      })),
    );
  }

  /** One call of the engine's `step`; its books must be right after it. */
  async step(): Promise<void> {
    const outputs = this.engine.step();
    this.#executor.open();
    this.note(await outputs);
    this.engine.checkIntegrity();
  }

  async run(requests: readonly EngineRequest[] = []): Promise<this> {
    for (const request of requests) this.add(request);
    for (let i = 0; this.engine.hasWork; i++) {
      if (i === MAX_STEPS) throw new Error(`The engine still has work after ${MAX_STEPS} steps.`);
      await this.step();
    }
    return this;
  }

  /** Runs a request until the engine has learned to have as many steps in flight as there may be. */
  async deepen(promptTokens: readonly number[]): Promise<void> {
    const { maxStepsInFlight } = this.#executor;
    this.add(request("deepen", promptTokens, { maxTokens: 180 }));
    while (this.engine.stats().stepsInFlight < maxStepsInFlight) await this.step();
    this.abort("deepen");
    this.answers.delete("deepen");
    this.#executor.mostInFlight = 0;
  }

  abort(id: RequestId): void {
    this.note(this.engine.abort(id));
    this.engine.checkIntegrity();
  }

  note(outputs: readonly SequenceOutput[]): void {
    for (const output of outputs) {
      const answer = this.answers.get(output.requestId)?.[output.index];
      if (answer === undefined || answer.finishReason !== undefined) {
        throw new Error(`${output.requestId}/${output.index} is not open, and something comes.`);
      }
      answer.tokens.push(...output.tokens);
      answer.logprobs.push(...(output.logprobs ?? []));
      answer.finishReason = output.finishReason;
      answer.stopToken = output.stopToken;
      answer.cumulativeLogprob = output.cumulativeLogprob;
      answer.cachedTokens = output.cachedTokens;
    }
  }

  /** The answers without what depends on the company that they had. */
  get said(): ReadonlyMap<RequestId, readonly Omit<Answer, "cachedTokens">[]> {
    return new Map(
      [...this.answers].map(([id, answers]) => [
        id,
        answers.map(({ cachedTokens: _, ...said }) => said),
      ]),
    );
  }
}

/** A greedy request of one sample that runs to its length, but for what `fields` say. */
export function request(
  id: RequestId,
  promptTokens: readonly number[],
  fields: Partial<EngineRequest> = {},
): EngineRequest {
  return { id, promptTokens, n: 1, maxTokens: 18, stopTokenIds: [], sampling: GREEDY, ...fields };
}

/** Sampling at temperature 1 with this seed, but for what `fields` say. */
export function sampled(
  seed: SamplingParams["seed"],
  fields: Partial<SamplingParams> = {},
): SamplingParams {
  return { ...GREEDY, temperature: 1, ...fields, seed };
}

/** A tiny model on a back end, and engines over it. */
export interface FeatureBench {
  readonly plan: Plan;
  readonly blockSize: number;
  /** Of the back end: an engine has none unless it is told to. */
  readonly numHostBlocks: number;
  /** A fresh engine: empty caches, all of the pool and no host memory unless given. */
  drive(options?: Partial<DriverOptions>): EngineDriver;
  /** Random tokens, different ones for each call. */
  tokens(count: number): readonly number[];
}
