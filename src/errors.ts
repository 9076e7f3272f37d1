/** What went wrong, for programs. The message says it for people: what failed, what was found, what to do. */
export type QuireErrorCode =
  // The caller
  | "invalid-argument" // a field of the wrong type or out of range
  | "unsupported" // a field or value that this version does not offer; the message names it
  | "context-overflow" // the prompt does not fit the context
  | "kv-pool-too-small" // the request could never fit the KV pool
  | "aborted" // an AbortSignal fired
  | "deadline-exceeded" // the request's deadline_ms was over; `data.choices` holds what it had by then
  | "disposed" // the engine was disposed
  // The model file
  | "source-read" // bytes could not be read from the file, server or store
  | "gguf-invalid" // not a GGUF, truncated or hostile
  | "gguf-limit" // a count or length over a named limit
  | "model-unsupported" // architecture, tensor type or tokenizer that Quire does not run
  | "model-invalid" // metadata or tensors that contradict each other
  | "chat-template" // no template, or it failed
  | "storage" // OPFS or quota
  // The machine
  | "webgpu-unavailable" // no navigator.gpu, or no adapter
  | "webgpu-limits" // the adapter's limits are too small
  | "adapter-numerics" // the adapter, or the browser's WebAssembly, computes wrong results
  | "wasm-unavailable" // no WebAssembly SIMD, or the page's Content-Security-Policy forbids it
  | "out-of-memory" // an allocation failed
  | "device-lost" // the GPU device is gone and could not be replaced
  | "worker-failed" // the worker crashed, was blocked, or did not answer
  | "internal"; // a bug in Quire

/** A value of an error's data: JSON. */
export type QuireErrorValue =
  | string
  | number
  | boolean
  | null
  | readonly QuireErrorValue[]
  | QuireErrorData;

/** Values that belong to an error, in units that its message names. Structured-cloneable. */
export interface QuireErrorData {
  readonly [name: string]: QuireErrorValue;
}

/** The one error class of Quire. `code` is stable; `message` is not. */
export class QuireError extends Error {
  readonly code: QuireErrorCode;
  readonly data: QuireErrorData;

  constructor(
    code: QuireErrorCode,
    message: string,
    data: QuireErrorData = {},
    options?: { readonly cause?: unknown },
  ) {
    super(message, options);
    this.name = "QuireError";
    this.code = code;
    this.data = data;
  }
}

/** Checks our own assumptions; a failure is a bug in Quire and never bad input. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new QuireError("internal", `${message} This is a bug in Quire.`);
}

/** Throws `aborted` if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) {
    throw new QuireError("aborted", `${what} was aborted.`, {}, { cause: signal.reason });
  }
}
