import { QuireError } from "../errors.ts";
import { AnswerMemory } from "../text/answerMemory.ts";
import { Detokenizer } from "../text/detokenizer.ts";
import { createBlobSource } from "../weights/blobSource.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import { deleteModel, listModels, openModelUrl } from "../weights/modelStore.ts";
import type { ChosenBackend } from "./chooseBackend.ts";
import { type LoadedParts, loadModel, monotonic } from "./loadedModel.ts";
import { PageSource } from "./pageSource.ts";
import { PageThreads } from "./pageThreads.ts";
import type { Placement } from "./placement.ts";
import { checkRequestTokenIds, checkTokenId, encodePrompt, roomFor } from "./prompt.ts";
import {
  type BackendInfo,
  type ControlApi,
  type EngineStats,
  type GenerateRequest,
  type LoadedModel,
  type LoadRequest,
  type PageMessage,
  type Reply,
  type SequenceDelta,
  toWireError,
  type WorkerMessage,
} from "./protocol.ts";
import { Recovery } from "./recovery.ts";
import { RequestText } from "./requestText.ts";
import { createMessageYield, type MessageYield } from "./yieldToMessages.ts";

export interface HostOptions {
  readonly createBackend: (
    request: LoadRequest,
    openThreads: PageThreads["open"],
    signal: AbortSignal,
  ) => Promise<ChosenBackend>;
  /** Posts on the stream port. */
  readonly send: (message: WorkerMessage) => void;
  /** Milliseconds of a monotonic clock; default `performance.now`. */
  readonly now?: () => number;
  /** Called between steps; default: a message to oneself. */
  readonly messageYield?: MessageYield;
}

/**
 * The engine's side of one page: joins engine, text, model and back end, runs the loop and speaks the
 * protocol. Knows no worker: its messages come by `receive` and leave by `send`.
 */
export class EngineHost {
  /** The control calls, for comlink. Never rejects: errors are in the replies. */
  readonly control: ControlApi;
  readonly #options: HostOptions;
  readonly #lifetime = new AbortController();
  readonly #messages: MessageYield;
  readonly #threads: PageThreads;
  readonly #requests = new Map<number, RequestText>();
  readonly #answers = new AnswerMemory();
  readonly #recovery: Recovery;
  #loading: Promise<LoadedParts> | undefined;
  #parts: LoadedParts | undefined;
  #request: LoadRequest | undefined;
  #pageSource: PageSource | undefined;
  #isLooping = false;
  /** While a lost device is replaced; never rejects. */
  #recovering: Promise<void> | undefined;
  /** What every later call fails with. */
  #failure: QuireError | undefined;

  constructor(options: HostOptions) {
    this.#options = options;
    this.#messages = options.messageYield ?? createMessageYield();
    this.#threads = new PageThreads(options.send);
    this.#recovery = new Recovery({
      // Only WebGPU loses devices, and what has been chosen stays.
      openBackend: (signal) => this.#openBackend({ ...this.#request!, backend: "webgpu" }, signal),
      signal: this.#lifetime.signal,
      now: options.now ?? (() => performance.now()),
    });
    this.control = {
      load: (request) => this.#reply(() => this.#load(request)),
      tokenize: (text, specialTokens) =>
        this.#reply(() => this.#loaded().tokenizer.encode(text, { specialTokens })),
      detokenize: (tokens) => this.#reply(() => this.#detokenize(tokens)),
      stats: () => this.#reply(() => this.#stats()),
      events: () => this.#reply(() => this.#loaded().engine.events()),
      endSession: (session) => this.#reply(() => this.#loaded().engine.endSession(session)),
      resetPrefixCache: () => this.#reply(() => this.#resetPrefixCache()),
      listModels: () => this.#reply(async () => [...(await listModels())]),
      deleteModel: (url) => this.#reply(() => deleteModel(url)),
      dispose: () => this.#reply(() => this.#dispose()),
    };
  }

  /** Takes a message of the stream port. */
  receive(message: PageMessage): void {
    switch (message.type) {
      case "submit":
        this.#submit(message.request);
        break;
      case "abort":
        this.#abort(message.requestId);
        break;
      case "readDone":
        this.#pageSource?.receive(message);
        break;
      case "threads":
        this.#threads.receive(message);
    }
  }

  async #reply<T>(run: () => T | Promise<T>): Promise<Reply<T>> {
    try {
      return { ok: true, value: await run() };
    } catch (error) {
      return { ok: false, error: toWireError(error) };
    }
  }

  async #load(request: LoadRequest): Promise<LoadedModel> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#loading !== undefined) {
      throw new QuireError("internal", "A worker loads one model. This is a bug in Quire.");
    }
    this.#request = request;
    this.#loading = loadModel(request, {
      createBackend: (signal) => this.#openBackend(request, signal),
      openSource: async (signal) => this.#openSource(request.model, signal),
      signal: this.#lifetime.signal,
      onProgress: (progress) => this.#options.send({ type: "progress", progress }),
      now: this.#options.now ?? (() => performance.now()),
    });
    const parts = await this.#loading;
    this.#parts = parts;
    this.#watch(parts.placement);
    this.#options.send({ type: "loaded" });
    return { ...describeBackend(parts.placement), model: parts.info };
  }

  #openBackend(request: LoadRequest, signal: AbortSignal): Promise<ChosenBackend> {
    const openThreads: PageThreads["open"] = (count, own) => this.#threads.open(count, own);
    return this.#options.createBackend(request, openThreads, signal);
  }

  #openSource(model: LoadRequest["model"], signal: AbortSignal): Promise<ByteSource> | ByteSource {
    switch (model.kind) {
      case "url": {
        const onProgress = monotonic(
          (progress) => this.#options.send({ type: "progress", progress }),
          "download",
        );
        return openModelUrl(model.url, {
          signal,
          onProgress: ({ loaded, total }) =>
            onProgress({ loadedBytes: loaded, totalBytes: total ?? 0 }),
        });
      }
      case "blob":
        return createBlobSource(model.blob, model.name);
      case "page":
        this.#pageSource = new PageSource(model.name, model.byteLength, this.#options.send);
        return this.#pageSource;
    }
  }

  #loaded(): LoadedParts {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#parts !== undefined) return this.#parts;
    throw new QuireError("internal", "No model is loaded yet. This is a bug in Quire.");
  }

  #submit(request: GenerateRequest): void {
    const { requestId, prompt: _, stop: __, maxTokens, ...settings } = request;
    try {
      const parts = this.#loaded();
      const promptTokens = encodePrompt(request, parts, this.#answers);
      checkRequestTokenIds(request, promptTokens, parts.info.vocabularySize);
      // Before the engine has the request: one that fails here could not be aborted there.
      const text = new RequestText(parts.tokenizer, request, promptTokens);
      parts.engine.add({
        ...settings,
        id: requestId,
        promptTokens,
        maxTokens: maxTokens ?? roomFor(promptTokens.length, request.beam?.width ?? 1, parts),
      });
      this.#requests.set(requestId, text);
      this.#options.send({ type: "accepted", requestId, promptTokens: promptTokens.length });
      void this.#loop(parts);
    } catch (error) {
      this.#options.send({ type: "failed", requestId, error: toWireError(error) });
    }
  }

  #abort(requestId: number): void {
    const request = this.#requests.get(requestId);
    if (request === undefined) return;
    this.#requests.delete(requestId);
    request.rememberIn(this.#answers);
    this.#parts!.engine.abort(requestId);
  }

  /** Runs steps while there is work. Messages are handled between steps. */
  async #loop({ engine }: LoadedParts): Promise<void> {
    if (this.#isLooping) return;
    this.#isLooping = true;
    // Requests that arrive together start together.
    await this.#messages.yield();
    while (engine.hasWork && this.#failure === undefined) {
      await this.#recovering;
      if (this.#failure !== undefined) break;
      const { placement } = this.#parts!;
      try {
        this.#deliver(await engine.step());
      } catch (error) {
        await this.#lose(placement, error);
      }
      await this.#messages.yield();
    }
    this.#isLooping = false;
  }

  #watch(placement: Placement): void {
    void placement.backend.lost.then((error) => this.#lose(placement, error));
  }

  /**
   * The back end failed. A lost device is replaced: everyone waits meanwhile and goes on with the same
   * tokens. Resolves when that is done, or cannot be and everyone knows.
   */
  async #lose(placement: Placement, error: unknown): Promise<void> {
    if (this.#failure !== undefined) return;
    // What fails because of a loss that is known tells nothing new.
    if (this.#recovering !== undefined || this.#parts!.placement !== placement) {
      return this.#recovering;
    }
    if (error instanceof QuireError && error.code === "device-lost") {
      this.#recovering = this.#replace(placement, error);
      return this.#recovering;
    }
    this.#break(error);
  }

  async #replace(lost: Placement, error: QuireError): Promise<void> {
    const parts = this.#parts!;
    try {
      const placement = await this.#recovery.replace(parts.placeable, lost, error);
      this.#parts = { ...parts, placement };
      parts.engine.replaceExecutor(placement.plan);
      this.#watch(placement);
    } catch (cause) {
      this.#break(cause);
    }
    this.#recovering = undefined;
  }

  #deliver(outputs: Awaited<ReturnType<LoadedParts["engine"]["step"]>>): void {
    const deltas: SequenceDelta[] = [];
    const failed: WorkerMessage[] = [];
    for (const output of outputs) {
      const requestId = output.requestId as number;
      const request = this.#requests.get(requestId);
      const result = request?.push(output);
      if (request === undefined || result === undefined) continue;
      const { delta, hitStopString, hasEnded, error } = result;
      if (hitStopString) this.#parts!.engine.finishSequence(requestId, output.index, "stop");
      deltas.push(delta);
      if (hasEnded) {
        this.#requests.delete(requestId);
        request.rememberIn(this.#answers);
      }
      if (error !== undefined) {
        failed.push({ type: "failed", requestId, error: toWireError(error) });
      }
    }
    if (deltas.length > 0) this.#options.send({ type: "step", deltas });
    for (const message of failed) this.#options.send(message);
  }

  /** The engine cannot go on: everyone learns why. */
  #break(error: unknown): void {
    if (this.#failure !== undefined) return;
    const wire = toWireError(error);
    this.#failure = new QuireError(wire.code, wire.message, wire.data, { cause: error });
    this.#requests.clear();
    this.#options.send({ type: "broken", error: wire });
  }

  /** The answers' tokens are of use only while their keys and values may be in the pool. */
  #resetPrefixCache(): boolean {
    const isReset = this.#loaded().engine.resetPrefixCache();
    if (isReset) this.#answers.clear();
    return isReset;
  }

  #detokenize(tokens: readonly number[]): string {
    const { tokenizer, info } = this.#loaded();
    for (const [i, id] of tokens.entries()) checkTokenId(id, `tokens[${i}]`, info.vocabularySize);
    const detokenizer = new Detokenizer(tokenizer);
    return tokens.map((id) => detokenizer.push(id)).join("") + detokenizer.finish();
  }

  #stats(): EngineStats {
    const parts = this.#loaded();
    const { placement, engine, info } = parts;
    const { blockSize, kvCacheDtype } = this.#request!;
    const { weights, kvPool, scratch, swapped } = placement.plan.memory;
    const stats = engine.stats();
    const { p50, p99 } = stats.metrics.inter_token_latency_seconds;
    return {
      ...describeBackend(placement),
      model: info,
      memory: {
        weightsBytes: weights,
        kvPoolBytes: kvPool,
        scratchBytes: scratch,
        swappedBytes: swapped,
      },
      kv: {
        dtype: kvCacheDtype,
        blockSize,
        blocksTotal: stats.kvBlocksTotal,
        blocksUsed: stats.kvBlocksUsed,
        blocksCached: stats.kvBlocksCached,
        blocksPeak: stats.kvBlocksPeak,
      },
      maxSequences: stats.maxSequences,
      sequences: { running: stats.running, waiting: stats.waiting, swapped: stats.swapped },
      stalled: stats.stalled,
      totals: {
        steps: stats.steps,
        preemptions: stats.preemptions,
        swaps: stats.swaps,
        deviceLosses: this.#recovery.numLosses,
        promptTokens: stats.promptTokens,
        cachedTokens: stats.prefixCacheHits,
        completionTokens: stats.generationTokens,
      },
      timing: {
        msPerStep: stats.msPerStep,
        msPerRow: stats.msPerRow,
        interTokenMsP50: p50 * 1000,
        interTokenMsP99: p99 * 1000,
      },
      metrics: stats.metrics,
    };
  }

  /** Stops loading and generating and frees everything. The page has told its callers already. */
  async #dispose(): Promise<void> {
    this.#failure ??= new QuireError("disposed", "The engine was disposed.");
    this.#lifetime.abort(this.#failure);
    this.#requests.clear();
    // Loading frees what it holds when it fails; its error went to the caller of `load`.
    await this.#loading?.catch(() => undefined);
    await this.#recovering;
    this.#parts?.placement.plan.dispose();
    this.#parts?.placement.backend.dispose();
    this.#messages.close();
  }
}

function describeBackend({ backend, reason }: Placement): BackendInfo {
  const { name, precision, threads, simd, adapter } = backend;
  return { backend: name, backendReason: reason, precision, threads, simd, adapter };
}
