import { type Remote, releaseProxy, wrap } from "comlink";
import { QuireError } from "../errors.ts";
import {
  type ByteSource,
  type ConnectMessage,
  type ControlApi,
  fromWireError,
  type GenerateRequest,
  type LoadedModel,
  type LoadProgress,
  type LoadRequest,
  type PageMessage,
  PROTOCOL_VERSION,
  type Reply,
  type SequenceDelta,
  type WorkerMessage,
} from "../worker/protocol.ts";
import { OwnedWorker } from "./ownedWorker.ts";
import { serveByteSource } from "./serveByteSource.ts";
import { ThreadWorkers } from "./threadWorkers.ts";

/** Where the messages of one request go. */
export interface RequestSink {
  accepted(promptTokens: number): void;
  delta(delta: SequenceDelta): void;
  /** The last call: the request ended with an error. */
  failed(error: QuireError): void;
}

export interface ConnectionOptions {
  /** Makes the engine's worker and, where more than one can be made, its threads. */
  readonly createWorker: () => Worker;
  /** Milliseconds from a worker's creation to its first answer. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Read by the worker, by range. */
  readonly source?: ByteSource | undefined;
}

/** Milliseconds that a closing worker may take to free the GPU before it is ended all the same. */
const CLOSE_TIMEOUT_MS = 2000;

/**
 * The page's end of one engine worker: its ports, its threads, its calls in flight, its end. Whatever
 * ends it (a crash, also of a thread, a broken engine, `close`) rejects every call and fails every
 * request, so that none hangs.
 */
export class WorkerConnection {
  readonly #worker: OwnedWorker;
  readonly #threads: ThreadWorkers;
  readonly #stream: MessagePort;
  // Held for as long as the connection: a proxy that is garbage-collected drops its replies.
  readonly #control: Remote<ControlApi>;
  readonly #sinks = new Map<number, RequestSink>();
  readonly #rejects = new Set<(error: QuireError) => void>();
  readonly #onProgress: ((progress: LoadProgress) => void) | undefined;
  #failure: QuireError | undefined;
  #onReady: () => void = () => {};
  #onLoaded: () => void = () => {};
  #abortReads: () => void = () => {};
  #nextRequestId = 1;

  /** Starts the worker. Throws `worker-failed`, `aborted`. */
  static async open(options: ConnectionOptions): Promise<WorkerConnection> {
    const connection = new WorkerConnection(options);
    try {
      await connection.race(
        new Promise<void>((resolve) => {
          connection.#onReady = resolve;
        }),
        options.signal,
      );
      return connection;
    } catch (error) {
      connection.#end(error as QuireError);
      throw error;
    }
  }

  private constructor(options: ConnectionOptions) {
    const { createWorker, timeoutMs } = options;
    const onFailed = (error: QuireError) => this.#end(error);
    this.#onProgress = options.onProgress;
    this.#worker = new OwnedWorker({ createWorker, role: "worker", timeoutMs, onFailed });
    this.#threads = new ThreadWorkers({ createWorker, timeoutMs, onFailed });
    const control = new MessageChannel();
    const stream = new MessageChannel();
    this.#stream = stream.port1;
    this.#stream.addEventListener("messageerror", () => this.#worker.messageFailed());
    this.#stream.addEventListener("message", (event: MessageEvent<WorkerMessage>) =>
      this.#receive(event.data),
    );
    if (options.source !== undefined) {
      this.#abortReads = serveByteSource(this.#stream, options.source);
    }
    this.#stream.start();
    control.port1.addEventListener("messageerror", () => this.#worker.messageFailed());
    this.#control = wrap<ControlApi>(control.port1);
    const message: ConnectMessage = {
      type: "connect",
      version: PROTOCOL_VERSION,
      control: control.port2,
      stream: stream.port2,
      lockName: this.#worker.lockName,
    };
    this.#worker.post(message, [control.port2, stream.port2]);
  }

  /** Loads the model; all progress has been reported when it resolves. Throws as `call` does. */
  async load(request: LoadRequest, signal?: AbortSignal): Promise<LoadedModel> {
    const reported = new Promise<void>((resolve) => {
      this.#onLoaded = resolve;
    });
    const loaded = await this.call((control) => control.load(request), signal);
    await this.race(reported, signal);
    return loaded;
  }

  /** A control call. Throws its coded error, or what ended the worker meanwhile. */
  async call<T>(
    run: (control: Remote<ControlApi>) => Promise<Reply<T>>,
    signal?: AbortSignal,
  ): Promise<T> {
    if (this.#failure !== undefined) throw this.#failure;
    const reply = await this.race(run(this.#control), signal);
    if (reply.ok) return reply.value;
    throw fromWireError(reply.error);
  }

  /** `promise`, or a rejection if the connection ends or the signal fires first. */
  race<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        const cause = signal?.reason;
        settle(() => reject(new QuireError("aborted", "The call was aborted.", {}, { cause })));
      };
      const onEnd = (error: QuireError) => settle(() => reject(error));
      const settle = (act: () => void) => {
        this.#rejects.delete(onEnd);
        signal?.removeEventListener("abort", onAbort);
        act();
      };
      if (this.#failure !== undefined) return reject(this.#failure);
      if (signal?.aborted) return onAbort();
      this.#rejects.add(onEnd);
      signal?.addEventListener("abort", onAbort);
      promise.then(
        (value) => settle(() => resolve(value)),
        (error) => settle(() => reject(error)),
      );
    });
  }

  /** Sends a request; its messages go to `sink` until its last. Returns its id. Throws if ended. */
  submit(request: Omit<GenerateRequest, "requestId">, sink: RequestSink): number {
    if (this.#failure !== undefined) throw this.#failure;
    const requestId = this.#nextRequestId++;
    this.#post({ type: "submit", request: { ...request, requestId } });
    this.#sinks.set(requestId, sink);
    return requestId;
  }

  /** Ends a request without another message to its sink. A request that has ended is left alone. */
  abort(requestId: number): void {
    if (this.#sinks.delete(requestId)) this.#post({ type: "abort", requestId });
  }

  /** Rejects everything pending with `error`, lets the worker free what it holds and ends it. */
  async close(error: QuireError): Promise<void> {
    if (this.#failure !== undefined) return;
    this.#rejectAll(error);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    });
    // A worker that cannot answer any more is ended by `terminate`, which frees its GPU device too.
    await Promise.race([this.#control.dispose().catch(() => {}), timeout]);
    clearTimeout(timer);
    this.#terminate();
  }

  #end(error: QuireError): void {
    if (this.#failure !== undefined) return;
    this.#rejectAll(error);
    this.#terminate();
  }

  #rejectAll(error: QuireError): void {
    this.#failure = error;
    for (const reject of [...this.#rejects]) reject(error);
    for (const sink of [...this.#sinks.values()]) sink.failed(error);
    this.#sinks.clear();
  }

  #terminate(): void {
    this.#control[releaseProxy]();
    this.#stream.close();
    this.#abortReads();
    this.#worker.terminate();
    this.#threads.terminate();
  }

  #post(message: PageMessage, transfer: Transferable[] = []): void {
    this.#stream.postMessage(message, transfer);
  }

  #receive(message: WorkerMessage): void {
    switch (message.type) {
      case "ready":
        this.#ready(message.version, message.holdsLock);
        break;
      case "progress":
        this.#report(message.progress);
        break;
      case "loaded":
        this.#onLoaded();
        break;
      case "accepted":
        this.#sinks.get(message.requestId)?.accepted(message.promptTokens);
        break;
      case "step":
        for (const delta of message.deltas) this.#deliver(delta);
        break;
      case "failed": {
        const sink = this.#sinks.get(message.requestId);
        this.#sinks.delete(message.requestId);
        sink?.failed(fromWireError(message.error));
        break;
      }
      case "openThreads":
        void this.#openThreads(message.openId, message.count);
        break;
      case "broken":
        this.#end(fromWireError(message.error));
    }
  }

  /** A callback that throws ends the load, and its error reaches whoever waits for the engine. */
  #report(progress: LoadProgress): void {
    if (this.#failure !== undefined) return;
    try {
      this.#onProgress?.(progress);
    } catch (cause) {
      const message = "`onProgress` threw, so the model was not loaded. Its error is the cause.";
      this.#end(new QuireError("invalid-argument", message, { field: "onProgress" }, { cause }));
    }
  }

  #deliver(delta: SequenceDelta): void {
    const sink = this.#sinks.get(delta.requestId);
    if (delta.usage !== undefined) this.#sinks.delete(delta.requestId);
    sink?.delta(delta);
  }

  #ready(version: number, holdsLock: boolean): void {
    if (version !== PROTOCOL_VERSION) {
      const message =
        `The worker speaks version ${version} of the protocol, the page version ${PROTOCOL_VERSION}. ` +
        "Serve the worker file of the same Quire release as the page's.";
      this.#end(new QuireError("worker-failed", message, { version }));
      return;
    }
    this.#worker.started(holdsLock);
    this.#onReady();
  }

  async #openThreads(openId: number, count: number): Promise<void> {
    if (this.#failure !== undefined) return;
    try {
      const ports = await this.#threads.open(count);
      if (this.#failure === undefined) this.#post({ type: "threads", openId, ports }, ports);
    } catch (error) {
      this.#end(error as QuireError);
    }
  }
}
