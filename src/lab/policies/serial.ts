import { type CostModel, stepMs } from "../costModel.ts";
import { RequestQueue } from "../requestQueue.ts";
import { type KvUsage, noKvUsage, type Progress, type System } from "../system.ts";
import type { LabRequest } from "../workloads.ts";

/** One sequence at a time, as other runtimes in browsers do it: the samples of a request one after the other. */
export class Serial implements System {
  readonly id = "serial";
  batchSize = 0;
  readonly kv: KvUsage;
  readonly #model: CostModel;
  readonly #waiting = new RequestQueue();
  #request: LabRequest | undefined;
  /** Of the request: the sample that is computed, and its tokens so far. */
  #sample = 0;
  #generated = 0;

  constructor({ model }: { readonly model: CostModel }) {
    this.#model = model;
    this.kv = noKvUsage(model.kvSlots);
  }

  get hasWork(): boolean {
    return this.#request !== undefined || this.#waiting.size > 0;
  }

  get numWaiting(): number {
    return this.#waiting.size;
  }

  add(request: LabRequest): void {
    this.#waiting.push(request);
  }

  step(_nowMs: number, progress: Progress): number {
    const request = (this.#request ??= this.#waiting.shift()!);
    const { promptTokens, outputTokens, firstSequence, width } = request;
    const isPrompt = this.#generated === 0;
    const contextTokens = promptTokens + this.#generated;
    this.#generated += 1;
    this.batchSize = 1;
    this.kv.tokenStates = contextTokens;
    progress.token(firstSequence + this.#sample);
    if (this.#generated === outputTokens) {
      this.#generated = 0;
      this.#sample += 1;
      if (this.#sample === width) {
        this.#sample = 0;
        this.#request = undefined;
        progress.finish(request);
      }
    }
    return stepMs(this.#model, isPrompt ? promptTokens : 1, 1, contextTokens);
  }
}
