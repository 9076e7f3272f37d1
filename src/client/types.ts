/// <reference lib="esnext.disposable" preserve="true" />
import type {
  BackendInfo,
  ByteSource,
  EngineEvent,
  EngineStats,
  LoadProgress,
} from "../worker/protocol.ts";
import type {
  ChatCompletionParams,
  ChatCompletionParamsNonStreaming,
  ChatCompletionParamsStreaming,
  CompletionParams,
  CompletionParamsNonStreaming,
  CompletionParamsStreaming,
} from "./requestTypes.ts";

export type {
  AdapterSummary,
  BackendInfo,
  ByteSource,
  EngineEvent,
  EngineStats,
  LoadProgress,
  StoredModel,
} from "../worker/protocol.ts";
export type * from "./requestTypes.ts";

// --- Creating an engine ---

/** What `createEngine` takes. Only `model` is required. */
export interface EngineOptions {
  /**
   * A GGUF file. A URL is downloaded once and kept in the browser's storage; a File, Blob or
   * ByteSource is read by range; an ArrayBuffer is copied.
   */
  readonly model: string | URL | Blob | ArrayBuffer | ByteSource;
  /** Jinja source of a chat template; instead of the file's own. */
  readonly chatTemplate?: string;
  /**
   * `webgpu` takes any adapter, also one that is software. `wasm`: WebAssembly SIMD on the CPU. `auto`
   * (default) is WebGPU on an adapter that is no software and computes right, else WASM. It is chosen
   * when the engine starts; `stats().backendReason` says why.
   */
  readonly backend?: "auto" | "webgpu" | "wasm";
  /**
   * `exact`: float32 arithmetic. `fast`: activations of linear layers may be rounded to 8 bits, which
   * WASM makes use of; WebGPU has exact kernels only and, where `auto` chooses it, computes exactly
   * all the same. Default: `exact` on WebGPU, `fast` on WASM. `fast` with `backend: "webgpu"` rejects
   * with `unsupported`. `stats().precision` says which it is.
   */
  readonly precision?: "exact" | "fast";
  /**
   * Threads of the WASM back end in all, 1 to 64; default: the processor's, at most 8. It has one
   * where the page is not cross-origin isolated (COOP and COEP headers), or where `worker` is a
   * Worker. With `backend: "webgpu"` an `unsupported` error.
   */
  readonly threads?: number;
  /**
   * WASM instructions: relaxed SIMD where the browser has it (`auto`, default) or SIMD128 only
   * (`plain`). Results are the same. With `backend: "webgpu"` an `unsupported` error.
   */
  readonly simd?: "auto" | "plain";
  /** Bytes of memory for keys and values; default 256 MiB, or what `maxSequences` full contexts need. */
  readonly kvCacheBytes?: number;
  /** The same budget as a number of blocks; not together with `kvCacheBytes`. */
  readonly kvCacheBlocks?: number;
  /** How keys and values are stored; default `f16`. */
  readonly kvCacheDtype?: "f16" | "f32";
  /** Tokens a KV block; default 16. */
  readonly blockSize?: 8 | 16 | 32;
  /** Most sequences that generate at the same time (others wait): 1 to 256, default 16. */
  readonly maxSequences?: number;
  /**
   * Most bytes of ordinary memory for the keys and values of sequences that had to leave the pool, where
   * copying them back is cheaper than computing them again; taken as needed. 0: always compute again.
   * Default 256 MiB.
   */
  readonly swapBytes?: number;
  /**
   * Which waiting request goes first: in order of arrival and priority, or, within a priority, whose prompt
   * is in the pool the longest part; nobody is overtaken for ever. Default "fcfs".
   */
  readonly waitingOrder?: "fcfs" | "longest-prefix";
  /**
   * The script of `quire/worker`, for engine and threads: its URL, relative to the page; or a function
   * that returns a new Worker made from it each time; or one such Worker that no engine has had, which
   * leaves WASM with one thread. Default: inlined in the library, which needs a Content-Security-Policy with
   * `worker-src blob:`. The engine owns its workers and ends them.
   */
  readonly worker?: string | URL | Worker | (() => Worker);
  /** Milliseconds that a worker may take to start; default 30,000. */
  readonly workerTimeoutMs?: number;
  /** Aborts loading: `createEngine` rejects with `aborted` and leaves nothing behind. */
  readonly signal?: AbortSignal;
  /**
   * Called while loading; bytes of a phase never go back. If it throws, `createEngine` rejects with
   * `invalid-argument`, whose cause is what it threw, and leaves nothing behind.
   */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** How a function that starts a worker may be told to. */
export interface WorkerOptions {
  /** As in EngineOptions; it is ended with the call. */
  readonly worker?: string | URL | Worker | (() => Worker);
  /** Milliseconds that the worker may take to start; default 30,000. */
  readonly workerTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** The model that an engine runs. */
export interface ModelInfo {
  /** `general.name` of the file, or the file's name. */
  readonly name: string;
  /** The file's name or URL. */
  readonly file: string;
  readonly byteLength: number;
  /** `llama`, `qwen2`, `qwen3`. */
  readonly architecture: string;
  /** Weights, counted over all tensors. */
  readonly parameters: number;
  /** Longest sequence in tokens, prompt and completion together. */
  readonly contextLength: number;
  readonly vocabularySize: number;
  /** False where neither the file nor the options had one: chat completions reject with `chat-template`. */
  readonly hasChatTemplate: boolean;
}

/** A model, loaded in a worker. Made by `createEngine`. */
export interface QuireEngine extends BackendInfo {
  readonly model: ModelInfo;
  readonly chat: { readonly completions: ChatCompletions };
  readonly completions: Completions;
  /**
   * Token ids of a text of up to 1,000,000 characters (UTF-16); with `specialTokens`, texts of control
   * tokens become those tokens.
   */
  tokenize(text: string, options?: { readonly specialTokens?: boolean }): Promise<number[]>;
  /** Text of token ids, control tokens left out. */
  detokenize(tokens: readonly number[]): Promise<string>;
  stats(): Promise<EngineStats>;
  /** The latest preemptions, swaps, evictions, missed deadlines and stalls, with reasons and costs, oldest first. */
  events(): Promise<readonly EngineEvent[]>;
  /**
   * Says that a conversation is over: what requests with this `session` left in the pool, `keep` or not,
   * goes before everything else when room is needed.
   */
  endSession(session: string): Promise<void>;
  /**
   * Forgets all prefixes in the pool, as if every prompt were new. False, and nothing is done, while
   * requests run.
   */
  resetPrefixCache(): Promise<boolean>;
  /**
   * Ends every request with `disposed`, frees the back end and ends the workers. Idempotent: every call
   * resolves when that is done.
   */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** `engine.chat.completions`. */
export interface ChatCompletions {
  create(params: ChatCompletionParamsNonStreaming): Promise<ChatCompletion>;
  create(params: ChatCompletionParamsStreaming): Promise<CompletionStream<ChatCompletionChunk>>;
  create(
    params: ChatCompletionParams,
  ): Promise<ChatCompletion | CompletionStream<ChatCompletionChunk>>;
}

/** `engine.completions`. */
export interface Completions {
  create(params: CompletionParamsNonStreaming): Promise<Completion>;
  create(params: CompletionParamsStreaming): Promise<CompletionStream<CompletionChunk>>;
  create(params: CompletionParams): Promise<Completion | CompletionStream<CompletionChunk>>;
}

/**
 * Chunks of one request, read once by one consumer. Leaving the loop early ends the request, and so
 * does dropping the stream unread. After an abort, also one that comes when all chunks have arrived, the
 * next read throws `aborted`. Reads that overlap take their turns.
 */
export interface CompletionStream<Chunk> extends AsyncIterable<Chunk> {
  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined>;
  /** Ends the request; the next read throws `aborted`. */
  abort(): void;
  /** The chunks as a ReadableStream; cancelling it ends the request. */
  toReadableStream(): ReadableStream<Chunk>;
}

// --- Results ---

/** `stop`: an end token, a stop text or stop token. `length`: `max_tokens` or the context is reached. */
export type FinishReason = "stop" | "length";

export interface CompletionUsage {
  prompt_tokens: number;
  /** Of all choices together. */
  completion_tokens: number;
  total_tokens: number;
  /** Prompt tokens whose keys and values were in the pool already. */
  prompt_tokens_details: { cached_tokens: number };
}

export interface TopLogprob {
  token: string;
  logprob: number;
  /** The token's UTF-8; a token may hold part of a character. */
  bytes: number[];
}

export interface TokenLogprob extends TopLogprob {
  top_logprobs: TopLogprob[];
}

/**
 * One entry for each of the prompt's tokens: null for the first, then token ids to log-probabilities, of the
 * prompt's token and of the likeliest ones. JavaScript lists such keys by number: go by `rank`.
 */
export type PromptLogprobs = (Record<number, PromptLogprob> | null)[];

export interface PromptLogprob {
  logprob: number;
  /** The token's place among all: 1 = the likeliest. */
  rank: number;
  /** The token by itself; a token may hold part of a character. */
  decoded_token: string;
}

export interface ChatLogprobs {
  content: TokenLogprob[];
  refusal: null;
}

export interface ChatChoice {
  index: number;
  message: { role: "assistant"; content: string; refusal: null };
  logprobs: ChatLogprobs | null;
  finish_reason: FinishReason;
  /** The stop text or stop token id that ended the choice, if one did. */
  stop_reason: string | number | null;
  /** The generated tokens without the end token; with `return_token_ids`. */
  token_ids?: number[];
  /**
   * Sum of the log-probabilities of its tokens, and of the one that ended it; with `logprobs`,
   * `use_beam_search` and `best_of` above `n`, but for a choice that a stop text ended.
   */
  cumulative_logprob?: number;
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  /** Unix time in seconds. */
  created: number;
  model: string;
  choices: ChatChoice[];
  usage: CompletionUsage;
  /** With `prompt_logprobs`. Of the prompt as the chat template made it. */
  prompt_logprobs?: PromptLogprobs;
}

export interface ChatChunkChoice {
  index: number;
  /** `role` comes in the first chunk of a choice, `content` where there is new text. */
  delta: { role?: "assistant"; content?: string };
  logprobs: ChatLogprobs | null;
  /** Null but in the last chunk of a choice. */
  finish_reason: FinishReason | null;
  stop_reason?: string | number | null;
  token_ids?: number[];
  cumulative_logprob?: number;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  /** One entry; none in the usage chunk. */
  choices: ChatChunkChoice[];
  /** With `prompt_logprobs`, in the first chunk. */
  prompt_logprobs?: PromptLogprobs;
  /** Set in the last chunk with `stream_options.include_usage`; null in the others then. */
  usage?: CompletionUsage | null;
}

export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: number[];
  /**
   * At each position: token text to log-probability, of the likeliest tokens and, where it is not one of
   * them, of the chosen one. Of tokens with one text the likeliest counts.
   */
  top_logprobs: Record<string, number>[];
  /** Where each token's text starts in the completion, in UTF-16 units. */
  text_offset: number[];
}

export interface CompletionChoice {
  index: number;
  text: string;
  logprobs: CompletionLogprobs | null;
  /** With `prompt_logprobs`; the same in all choices of a prompt. */
  prompt_logprobs?: PromptLogprobs;
  finish_reason: FinishReason;
  stop_reason: string | number | null;
  token_ids?: number[];
  cumulative_logprob?: number;
}

export interface Completion {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  /** n for each prompt, in the order of the prompts. */
  choices: CompletionChoice[];
  usage: CompletionUsage;
}

export interface CompletionChunkChoice {
  index: number;
  /** New text; may be empty. */
  text: string;
  logprobs: CompletionLogprobs | null;
  /** With `prompt_logprobs`, in the first chunk of a choice. */
  prompt_logprobs?: PromptLogprobs;
  finish_reason: FinishReason | null;
  stop_reason?: string | number | null;
  token_ids?: number[];
  cumulative_logprob?: number;
}

export interface CompletionChunk {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  choices: CompletionChunkChoice[];
  usage?: CompletionUsage | null;
}
