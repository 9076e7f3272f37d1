import type { AdapterSummary, Backend, KvCacheDtype } from "../backends/ops.ts";
import type { EngineRequest } from "../engine/engineRequest.ts";
import type { EngineEvent } from "../engine/eventLog.ts";
import type { MetricsSnapshot } from "../engine/metrics.ts";
import type { WaitingOrder } from "../engine/newcomers.ts";
import type { SamplingParams } from "../engine/sampling.ts";
import type { Stall } from "../engine/watchdog.ts";
import { QuireError, type QuireErrorCode, type QuireErrorData } from "../errors.ts";
import type { ChatMessage } from "../text/chatMessage.ts";
import type { ByteSource } from "../weights/byteSource.ts";

// The one definition of what crosses between page and worker. Two MessagePorts come with the
// `connect` message: one for control calls (comlink), one for the messages below, which carry
// tokens at one message an engine step.

export { MAX_SPECULATIVE_TOKENS } from "../engine/requestChecks.ts";
export { MAX_BEAM_WIDTH, MAX_LOGIT_BIAS, MAX_LOGPROBS } from "../engine/sampling.ts";
export type { AdapterSummary, ByteSource, ChatMessage, EngineEvent, SamplingParams };

/** Page and worker must come from the same build of the library. */
export const PROTOCOL_VERSION = 3;

/** The first message to the worker; its answer is `ready` on the stream port. */
export interface ConnectMessage {
  readonly type: "connect";
  readonly version: number;
  readonly control: MessagePort;
  readonly stream: MessagePort;
  /** A Web Lock that the worker holds for life: the page learns by it that the worker is gone. */
  readonly lockName: string;
}

/**
 * The first message to a further worker of the same script, which becomes a thread of the engine
 * worker; its answer is a ThreadReady on `page`.
 */
export interface ThreadMessage {
  readonly type: "thread";
  /** Joins the thread and the engine worker. */
  readonly port: MessagePort;
  readonly page: MessagePort;
  /** As in ConnectMessage. */
  readonly lockName: string;
}

export interface ThreadReady {
  readonly type: "ready";
  readonly holdsLock: boolean;
}

// --- Control calls ---

/** An error as it crosses: class, code and cause do not survive structured cloning. */
export interface WireError {
  readonly code: QuireErrorCode;
  readonly message: string;
  readonly data: QuireErrorData;
  /** Name and message of the cause. */
  readonly cause: string | undefined;
  readonly stack: string | undefined;
}

/** Outcome of a control call. Errors are values here so that they keep their code. */
export type Reply<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: WireError };

/** What the worker offers over comlink. */
export interface ControlApi {
  load(request: LoadRequest): Promise<Reply<LoadedModel>>;
  tokenize(text: string, specialTokens: boolean): Promise<Reply<number[]>>;
  detokenize(tokens: readonly number[]): Promise<Reply<string>>;
  stats(): Promise<Reply<EngineStats>>;
  events(): Promise<Reply<readonly EngineEvent[]>>;
  endSession(session: string): Promise<Reply<void>>;
  /** True if it was emptied. */
  resetPrefixCache(): Promise<Reply<boolean>>;
  listModels(): Promise<Reply<StoredModel[]>>;
  /** True if there was one. */
  deleteModel(url: string): Promise<Reply<boolean>>;
  dispose(): Promise<Reply<void>>;
}

/** Where the model's bytes come from. A `page` source is read by `read` messages. */
export type ModelOrigin =
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "blob"; readonly blob: Blob; readonly name: string }
  | { readonly kind: "page"; readonly name: string; readonly byteLength: number };

export interface LoadRequest {
  readonly model: ModelOrigin;
  readonly chatTemplate: string | undefined;
  readonly backend: "auto" | "webgpu" | "wasm";
  /** Undefined = the back end's default: exact on WebGPU, fast on WASM. */
  readonly precision: Backend["precision"] | undefined;
  /** Threads wanted in all for the WASM back end. */
  readonly threads: number;
  /** False where the page can start no worker beside this one. */
  readonly canOpenThreads: boolean;
  readonly simd: "auto" | "plain";
  readonly kvCacheBytes: number | undefined;
  readonly kvCacheBlocks: number | undefined;
  readonly kvCacheDtype: KvCacheDtype;
  readonly blockSize: 8 | 16 | 32;
  readonly maxSequences: number;
  /** Undefined = the default of `planSpec`. */
  readonly swapBytes: number | undefined;
  /** Undefined = the engine's default. */
  readonly waitingOrder: WaitingOrder | undefined;
}

/** What computes, and why that: chosen when the engine starts, and never changed. */
export interface BackendInfo {
  readonly backend: Backend["name"];
  /** One or two sentences: why this back end and, where fewer than wanted, why so many threads. */
  readonly backendReason: string;
  /** `fast`: activations of linear layers in 8 bits. */
  readonly precision: Backend["precision"];
  /** CPU threads that compute, the worker's own included; 1 on WebGPU. */
  readonly threads: number;
  /** WebAssembly instructions in use; null on other back ends. */
  readonly simd: Backend["simd"];
  /** Null where no adapter is involved. */
  readonly adapter: AdapterSummary | null;
}

export interface LoadedModel extends BackendInfo {
  readonly model: EngineStats["model"];
}

/** How far loading is. Phases come in this order; `download` only for a URL that is not stored yet. */
export interface LoadProgress {
  /** `download`: from the network to storage. `prepare`: header, tokenizer, pipelines. `weights`: to the back end. */
  readonly phase: "download" | "prepare" | "weights";
  /** Never goes back within a phase; 0 in `prepare`. */
  readonly loadedBytes: number;
  /** 0 where not known. */
  readonly totalBytes: number;
}

/** A model kept in the browser's storage. */
export interface StoredModel {
  readonly url: string;
  /** Size of the whole file; undefined if not known yet. */
  readonly byteLength: number | undefined;
  readonly storedBytes: number;
  /** False for a download that broke off: opening the URL again goes on from there. */
  readonly complete: boolean;
  /** Milliseconds since 1970. */
  readonly lastUsed: number;
}

/** A snapshot of the engine: what it runs on, what it holds, what it has done so far. */
export interface EngineStats extends BackendInfo {
  readonly model: {
    readonly name: string;
    readonly file: string;
    readonly byteLength: number;
    readonly architecture: string;
    readonly parameters: number;
    readonly contextLength: number;
    readonly vocabularySize: number;
    readonly hasChatTemplate: boolean;
  };
  /** Bytes held by the back end; `swappedBytes` in ordinary memory, of sequences out of the pool. */
  readonly memory: {
    readonly weightsBytes: number;
    readonly kvPoolBytes: number;
    readonly scratchBytes: number;
    readonly swappedBytes: number;
  };
  readonly kv: {
    readonly dtype: KvCacheDtype;
    /** Tokens a block. */
    readonly blockSize: number;
    readonly blocksTotal: number;
    /** Blocks that sequences hold now. */
    readonly blocksUsed: number;
    /** Blocks that hold a reusable prefix, free ones and held ones. */
    readonly blocksCached: number;
    /** Most blocks held at once so far. */
    readonly blocksPeak: number;
  };
  /** Most sequences that run at once: the option, or fewer where memory bounds the rows of a step. */
  readonly maxSequences: number;
  /** Sequences now: in the batch, waiting for a place in it, and those of the waiting that are swapped out. */
  readonly sequences: {
    readonly running: number;
    readonly waiting: number;
    readonly swapped: number;
  };
  /** Sequences that got no token for half a minute, longest first; `events` say what they lack. */
  readonly stalled: readonly Stall[];
  /** Since the engine was created. */
  readonly totals: {
    /** Steps, prompt chunks included. */
    readonly steps: number;
    /** Sequences whose blocks were taken away and that were computed again. */
    readonly preemptions: number;
    /** Those of the preemptions whose blocks were copied out and back instead. */
    readonly swaps: number;
    /** GPU devices that were lost and replaced: everyone was computed again. */
    readonly deviceLosses: number;
    /** Prompt tokens of all sequences, samples counted one by one, */
    readonly promptTokens: number;
    /** and how many of those were in the pool already. */
    readonly cachedTokens: number;
    readonly completionTokens: number;
  };
  readonly timing: {
    /** Learned milliseconds of a step, and more for each of its rows; 0 until measured. */
    readonly msPerStep: number;
    readonly msPerRow: number;
    /** Milliseconds between two tokens of a sequence: half of all times are no longer, 99 of 100. */
    readonly interTokenMsP50: number;
    readonly interTokenMsP99: number;
  };
  /** vLLM's metrics by vLLM's names, without the prefix `vllm:`. Times in seconds. */
  readonly metrics: MetricsSnapshot;
}

// --- Page -> worker, on the stream port ---

export type PageMessage =
  | { readonly type: "submit"; readonly request: GenerateRequest }
  | { readonly type: "abort"; readonly requestId: number }
  | {
      readonly type: "readDone";
      readonly readId: number;
      readonly result: Reply<Uint8Array<ArrayBuffer>>;
    }
  /** The answer to `openThreads`; that threads fail to start ends the connection instead. */
  | { readonly type: "threads"; readonly openId: number; readonly ports: readonly MessagePort[] };

/** A prompt as the page knows it; the worker has the tokenizer. */
export type PromptInput =
  | { readonly kind: "chat"; readonly messages: readonly ChatMessage[] }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "tokens"; readonly tokens: readonly number[] };

/** What goes to the engine as it is. */
type EngineSettings = Omit<EngineRequest, "id" | "promptTokens" | "maxTokens" | "adapterId">;

/** One prompt and what to make of it. Validated by the page but for what needs the tokenizer. */
export interface GenerateRequest extends EngineSettings {
  readonly requestId: number;
  readonly prompt: PromptInput;
  /** Undefined = up to the context. */
  readonly maxTokens: number | undefined;
  /** Texts that end a sample. Empty with beam search and where more samples are drawn than delivered. */
  readonly stop: readonly string[];
}

// --- Worker -> page, on the stream port ---

export type WorkerMessage =
  | { readonly type: "ready"; readonly version: number; readonly holdsLock: boolean }
  | { readonly type: "progress"; readonly progress: LoadProgress }
  /** No more progress comes. The ports have no order between them: the reply to `load` may be first. */
  | { readonly type: "loaded" }
  /** The request has been checked and waits for its turn. */
  | { readonly type: "accepted"; readonly requestId: number; readonly promptTokens: number }
  /** What one engine step brought, for all sequences of all requests. */
  | { readonly type: "step"; readonly deltas: readonly SequenceDelta[] }
  /** The request ended with an error; nothing follows for it. */
  | { readonly type: "failed"; readonly requestId: number; readonly error: WireError }
  /** The engine is broken: every request has failed and every later call will. */
  | { readonly type: "broken"; readonly error: WireError }
  | {
      readonly type: "read";
      readonly readId: number;
      readonly offset: number;
      readonly byteLength: number;
    }
  | { readonly type: "cancelRead"; readonly readId: number }
  /** Asks for further workers, which only the page can start. */
  | { readonly type: "openThreads"; readonly openId: number; readonly count: number };

/** What a step added to one sequence. Empty deltas are not sent. */
export interface SequenceDelta {
  readonly requestId: number;
  /** Which of the request's n samples. */
  readonly index: number;
  /** New text: may lag behind the tokens (split characters, possible stop strings). */
  readonly text: string;
  /** New token ids, without the token that ended the sequence. */
  readonly tokens: readonly number[];
  /** One for each of `tokens`, where asked for. */
  readonly logprobs?: readonly WireLogprob[];
  /** Where asked for, with the first delta of sample 0: one for each of the prompt's tokens from the second on. */
  readonly promptLogprobs?: readonly WirePromptLogprob[];
  /** Set when the sequence has ended, but for a deadline: the request fails then. */
  readonly finish?: SequenceFinish;
  /** Set on the request's last delta, when all its samples have ended. */
  readonly usage?: WireUsage;
}

export interface SequenceFinish {
  readonly reason: "stop" | "length";
  readonly stop: string | number | null;
  /** Sum over the sequence's tokens and the one that ended it, where log-probabilities were computed. */
  readonly cumulativeLogprob?: number;
}

export interface WireTokenText {
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export interface WireLogprob extends WireTokenText {
  readonly top: readonly WireTokenText[];
  /** Where the token's text starts in the sequence's text, in UTF-16 units. */
  readonly offset: number;
}

/** A prompt's token and then, without it, the best ones of its place. */
export type WirePromptLogprob = readonly {
  readonly token: number;
  readonly text: string;
  readonly logprob: number;
  readonly rank: number;
}[];

export interface WireUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
}

// --- Errors ---

/** Takes an error apart for the crossing; anything that is no QuireError is `internal`. */
export function toWireError(error: unknown): WireError {
  if (error instanceof QuireError) {
    return {
      code: error.code,
      message: error.message,
      data: error.data,
      cause: error.cause === undefined ? undefined : textOf(error.cause),
      stack: error.stack,
    };
  }
  const stack = error instanceof Error ? error.stack : undefined;
  const message = `${textOf(error)}. This is a bug in Quire.`;
  return { code: "internal", message, data: {}, cause: undefined, stack };
}

/** What was thrown, as a text; anything can be, also what has no way to become one. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return Object.prototype.toString.call(thrown);
  }
}

/** Builds the error again on the other side. */
export function fromWireError(wire: WireError): QuireError {
  const cause = wire.cause ?? (wire.code === "internal" ? wire.stack : undefined);
  return new QuireError(
    wire.code,
    wire.message,
    wire.data,
    cause === undefined ? undefined : { cause },
  );
}
