import { QuireError } from "../errors.ts";
import type { GenerateRequest, SequenceDelta, WireUsage } from "../worker/protocol.ts";
import type { RequestSink, WorkerConnection } from "./connection.ts";

/** What a step added to one choice. */
export interface ChoiceDelta extends Omit<SequenceDelta, "requestId" | "usage"> {
  /** Index of the choice over all prompts: prompt index * n + sample index. */
  readonly choice: number;
}

/** What has come of a choice, for the data of the error that a deadline ends it with. */
interface ChoiceSoFar {
  text: string;
  readonly tokens: number[];
  /** Null where it has not ended by itself. */
  finishReason: string | null;
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
  /** What each choice has so far; kept where a deadline may end it. */
  readonly #soFar: ChoiceSoFar[] = [];
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
      for (let i = 0; i < request.n && request.deadlineMs !== undefined; i++) {
        this.#soFar.push({ text: "", tokens: [], finishReason: null });
      }
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
    if (this.#error !== undefined) this.#end();
  }

  /**
   * The next delta; undefined after the last. Throws `aborted` after an abort, or the failure. Not to be
   * called again before it has settled.
   */
  async next(): Promise<ChoiceDelta | undefined> {
    for (;;) {
      const delta = this.#queue.shift();
      if (delta !== undefined) return delta;
      if (this.#error !== undefined || this.#unfinished === 0) return this.#end();
      await this.#news();
    }
  }

  /** Ends the requests that have not ended and drops what is unread. No effect after the end was read. */
  abort(reason?: unknown): void {
    this.#release();
    if (this.#unfinished === 0 && this.#queue.length === 0) return;
    this.#queue.length = 0;
    this.#fail(abortedError(reason));
  }

  #createSink(firstChoice: number): RequestSink {
    return {
      accepted: () => {
        this.#unaccepted--;
        this.#wake();
      },
      delta: ({ requestId: _, usage, ...delta }) => {
        this.#take({ ...delta, choice: firstChoice + delta.index });
        if (usage !== undefined) this.#finishOne(usage);
        this.#wake();
      },
      failed: (error) => {
        if (error.code === "deadline-exceeded") this.#failLate(error);
        else this.#fail(error);
      },
    };
  }

  #take(delta: ChoiceDelta): void {
    this.#queue.push(delta);
    const choice = this.#soFar[delta.choice];
    if (choice === undefined) return;
    choice.text += delta.text;
    choice.tokens.push(...delta.tokens);
    choice.finishReason = delta.finish?.reason ?? null;
  }

  #finishOne(usage: WireUsage): void {
    const sum = this.#usage;
    this.#usage = {
      promptTokens: sum.promptTokens + usage.promptTokens,
      completionTokens: sum.completionTokens + usage.completionTokens,
      cachedTokens: sum.cachedTokens + usage.cachedTokens,
    };
    this.#unfinished--;
  }

  /** What came in time is still read; then the error, which holds it too. */
  #failLate({ code, message, data, cause }: QuireError): void {
    const choices = this.#soFar.map(({ text, tokens, finishReason }, index) => {
      return { index, text, token_ids: tokens, finish_reason: finishReason };
    });
    const late = new QuireError(code, message, { ...data, choices }, { cause });
    this.#fail(late, this.#queue.splice(0));
  }

  /** `unread`: what is read before the error is thrown. */
  #fail(error: QuireError, unread: readonly ChoiceDelta[] = []): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#queue.splice(0, this.#queue.length, ...unread);
    this.#unfinished = 0;
    for (const id of this.#requestIds) this.#connection.abort(id);
    this.#wake();
  }

  /** The reader has come to the end: until then the signal may still drop what is unread. */
  #end(): undefined {
    this.#release();
    if (this.#error !== undefined) throw this.#error;
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
