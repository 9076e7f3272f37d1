import { QuireError } from "../errors.ts";
import type { GenerateRequest, SequenceDelta, WireUsage } from "../worker/protocol.ts";
import type { RequestSink, WorkerConnection } from "./connection.ts";

/** What a step added to one choice. */
export interface ChoiceDelta extends Omit<SequenceDelta, "requestId" | "usage"> {
  /** Index of the choice over all prompts: prompt index * n + sample index. */
  readonly choice: number;
}

/**
 * One call of `create` under way: its requests (one a prompt) and the deltas that have arrived and
 * are not read yet. One reader. It never makes the worker wait.
 */
export class Generation {
  readonly #connection: WorkerConnection;
  readonly #signal: AbortSignal | undefined;
  readonly #requestIds: number[] = [];
  readonly #onSignal = () => this.abort(this.#signal?.reason);
  readonly #queue: ChoiceDelta[] = [];
  #usage: WireUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 };
  #unaccepted = 0;
  #unfinished = 0;
  #error: QuireError | undefined;
  #wake: () => void = () => {};

  /** Submits the requests. Throws `aborted`, or what ended the engine. */
  constructor(
    connection: WorkerConnection,
    requests: readonly Omit<GenerateRequest, "requestId">[],
    signal: AbortSignal | undefined,
  ) {
    this.#connection = connection;
    this.#signal = signal;
    if (signal?.aborted) throw abortedError(signal.reason);
    this.#unaccepted = requests.length;
    this.#unfinished = requests.length;
    requests.forEach((request, promptIndex) => {
      const sink = this.#createSink(promptIndex * request.n);
      this.#requestIds.push(connection.submit(request, sink));
    });
    signal?.addEventListener("abort", this.#onSignal);
  }

  /** Of all requests together; whole once `next` has returned undefined. */
  get usage(): WireUsage {
    return this.#usage;
  }

  /** Resolves when the worker has checked all requests; throws if it refused one. */
  async accepted(): Promise<void> {
    while (this.#unaccepted > 0 && this.#error === undefined) await this.#news();
    if (this.#error !== undefined) throw this.#error;
  }

  /** The next delta; undefined after the last. Throws `aborted` after an abort, or the failure. */
  async next(): Promise<ChoiceDelta | undefined> {
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      const delta = this.#queue.shift();
      if (delta !== undefined) return delta;
      if (this.#unfinished === 0) return undefined;
      await this.#news();
    }
  }

  /** Ends the requests that have not ended and drops what is unread. No effect after the end was read. */
  abort(reason?: unknown): void {
    if (this.#unfinished === 0 && this.#queue.length === 0) return;
    this.#fail(abortedError(reason));
  }

  #createSink(firstChoice: number): RequestSink {
    return {
      accepted: () => {
        this.#unaccepted--;
        this.#wake();
      },
      delta: ({ requestId: _, usage, ...delta }) => {
        this.#queue.push({ ...delta, choice: firstChoice + delta.index });
        if (usage !== undefined) this.#finishOne(usage);
        this.#wake();
      },
      failed: (error) => this.#fail(error),
    };
  }

  #finishOne(usage: WireUsage): void {
    const sum = this.#usage;
    this.#usage = {
      promptTokens: sum.promptTokens + usage.promptTokens,
      completionTokens: sum.completionTokens + usage.completionTokens,
      cachedTokens: sum.cachedTokens + usage.cachedTokens,
    };
    this.#unfinished--;
    if (this.#unfinished === 0) this.#release();
  }

  #fail(error: QuireError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#queue.length = 0;
    this.#unfinished = 0;
    this.#release();
    for (const id of this.#requestIds) this.#connection.abort(id);
    this.#wake();
  }

  #release(): void {
    this.#signal?.removeEventListener("abort", this.#onSignal);
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

function abortedError(cause: unknown): QuireError {
  return new QuireError("aborted", "The request was aborted.", {}, { cause });
}
