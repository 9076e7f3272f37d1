import { Engine, type EngineOptions } from "../../engine/engine.ts";
import type { EngineRequest } from "../../engine/engineRequest.ts";
import { GREEDY, type SamplingParams } from "../../engine/sampling.ts";
import type { SequenceOutput } from "../../engine/sequenceOutput.ts";
import { invariant } from "../../errors.ts";
import type { CostModel } from "../costModel.ts";
import { type KvUsage, noKvUsage, type Progress, type System } from "../system.ts";
import type { LabRequest } from "../workloads.ts";
import { MAX_BATCHED_TOKENS, MAX_MODEL_TOKENS, MAX_SEQUENCES } from "./limits.ts";
import { ScriptedExecutor } from "./scriptedExecutor.ts";
import { promptTokens } from "./tokens.ts";

/** What of the engine's options an experiment may set. */
export type EngineTuning = Partial<
  Omit<EngineOptions, "executor" | "numBlocks" | "blockSize" | "endTokens" | "now">
>;

export interface QuireOptions {
  readonly model: CostModel;
  readonly seed: number;
  /** Default 16. */
  readonly blockSize?: number;
  readonly tuning?: EngineTuning;
}

interface OpenRequest {
  readonly request: LabRequest;
  /** Tokens of each of its sequences. */
  readonly generated: number[];
  /** Sequences that are not done. */
  left: number;
}

/** Steps between two looks at what the pool holds, which cost the engine more than a step. */
const KV_INTERVAL = 8;

/**
 * A step is to take no longer than this many times the step of one sequence: what a token may take at the
 * knee, so that prompts get all the time that the knee's definition gives them.
 */
const BUDGET_STEPS = 5;

/**
 * The engine of this library on a clock and a back end that are simulated: every decision is the one that it
 * takes in a browser.
 */
export class Quire implements System {
  readonly id = "quire";
  batchSize = 0;
  readonly kv: KvUsage;
  readonly engine: Engine;
  readonly executor: ScriptedExecutor;
  readonly #blockSize: number;
  readonly #maxTokens: number;
  readonly #open = new Map<number, OpenRequest>();
  #nowMs = 0;
  #numSteps = 0;

  constructor({ model, seed, blockSize = 16, tuning = {} }: QuireOptions) {
    this.#blockSize = blockSize;
    this.kv = noKvUsage(model.kvSlots);
    this.#maxTokens = Math.min(MAX_MODEL_TOKENS, model.kvSlots);
    this.executor = new ScriptedExecutor({
      model,
      seed,
      blockSize,
      onStep: (ms) => {
        this.#nowMs += ms;
        this.#account();
      },
    });
    const blockBytes = blockSize * model.kvBytesPerToken;
    this.engine = new Engine({
      blockBytes,
      numHostBlocks: Math.floor(model.swapBytes / blockBytes),
      maxSequences: MAX_SEQUENCES,
      maxRows: MAX_BATCHED_TOKENS,
      maxContext: MAX_MODEL_TOKENS,
      stepBudgetMs: BUDGET_STEPS * model.rowCosts[0]![1],
      ...tuning,
      executor: this.executor,
      numBlocks: Math.floor(model.kvSlots / blockSize),
      blockSize,
      endTokens: new Set(),
      now: () => this.#nowMs,
    });
  }

  get hasWork(): boolean {
    return this.engine.hasWork;
  }

  /** Requests that the last step computed nothing for. */
  get numWaiting(): number {
    return this.#open.size - this.batchSize;
  }

  add(request: LabRequest): void {
    const { index, width } = request;
    const generated = Array.from({ length: width }, () => 0);
    this.#open.set(index, { request, generated, left: width });
    this.engine.add(engineRequest(request, this.#maxTokens));
  }

  async step(nowMs: number, progress: Progress): Promise<number> {
    this.#nowMs = nowMs;
    for (const output of await this.engine.step()) this.#receive(output, progress);
    return this.#nowMs - nowMs;
  }

  #receive({ requestId, index, tokens, finishReason }: SequenceOutput, progress: Progress): void {
    const { request, generated } = this.#open.get(requestId as number)!;
    for (let i = 0; i < tokens.length; i++) progress.token(request.firstSequence + index);
    generated[index]! += tokens.length;
    const isDone = finishReason !== undefined || generated[index]! >= request.outputTokens;
    if (!isDone) return;
    const last = finishReason ?? this.engine.finishSequence(requestId, index)?.finishReason;
    invariant(last !== undefined, `Request ${requestId} could not be ended.`);
    this.#end(request, progress);
  }

  /** One of its sequences is done; of a beam search, all. */
  #end(request: LabRequest, progress: Progress): void {
    const open = this.#open.get(request.index)!;
    open.left -= request.isBeam ? request.width : 1;
    if (open.left > 0) return;
    this.#open.delete(request.index);
    progress.finish(request);
  }

  /** While a step runs: what ends with it still holds its blocks. */
  #account(): void {
    this.batchSize = this.executor.numRequestsOfStep;
    this.#numSteps += 1;
    if (this.#numSteps % KV_INTERVAL !== 1) return;
    const { kv } = this;
    const usage = this.engine.kvUsage();
    kv.tokenStates = usage.tokensHeld + usage.tokensPaused;
    kv.physicalBlocks = usage.blocksUsed;
    kv.logicalBlocks = usage.logicalBlocks;
    kv.reserved = usage.blocksUsed * this.#blockSize - usage.tokensHeld;
  }
}

/**
 * The request in the engine's terms. It is not told how long the answer will be, as the paper's vLLM was not:
 * the limit is the context's, and the answer is ended when it is as long as the trace says. Only beam searches,
 * which rank hypotheses at their end, get the length as their limit.
 */
function engineRequest(request: LabRequest, maxContext: number): EngineRequest {
  const { index, width, isBeam, outputTokens } = request;
  const sampling: SamplingParams = { ...GREEDY, temperature: isBeam ? 0 : 1, seed: [0, index] };
  return {
    id: index,
    promptTokens: promptTokens(request),
    n: isBeam ? 1 : width,
    maxTokens: isBeam ? outputTokens : maxContext - request.promptTokens,
    stopTokenIds: [],
    ignoreEos: true,
    sampling,
    ...(isBeam ? { beam: { width, lengthPenalty: 1, earlyStopping: false } } : {}),
  };
}
