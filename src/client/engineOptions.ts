import type { ByteSource, LoadProgress, LoadRequest, ModelOrigin } from "../worker/protocol.ts";
import { createInlineWorker } from "./inlineWorker.ts";
import {
  type Fields,
  invalidField,
  readChoice,
  readNumber,
  readObject,
  readSignal,
  refuseUnknown,
  unsupportedField,
} from "./validate.ts";

/** Options of `createEngine`, checked. */
export interface ParsedOptions {
  /** A new one with each call; throws at the second where `canStartMore` is false. */
  readonly createWorker: () => Worker;
  readonly canStartMore: boolean;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: LoadProgress) => void) | undefined;
  /** Set where the model is a ByteSource. */
  readonly source: ByteSource | undefined;
  readonly request: LoadRequest;
}

const ENGINE_FIELDS = new Set([
  "model",
  "chatTemplate",
  "backend",
  "precision",
  "threads",
  "simd",
  "kvCacheBytes",
  "kvCacheBlocks",
  "kvCacheDtype",
  "blockSize",
  "maxSequences",
  "swapBytes",
  "waitingOrder",
  "worker",
  "workerTimeoutMs",
  "signal",
  "onProgress",
]);

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_SEQUENCES = 16;
const MAX_SEQUENCES = 256;
/** More add little: a step's pieces are too small, and memory is shared. */
const MAX_DEFAULT_THREADS = 8;
const MAX_THREADS = 64;

/** Throws `invalid-argument`, `unsupported`. */
export function readEngineOptions(value: unknown): ParsedOptions {
  const fields = readObject(value, "options");
  refuseUnknown(fields, ENGINE_FIELDS);
  const backend = readBackend(fields);
  const chatTemplate = fields["chatTemplate"] ?? undefined;
  if (chatTemplate !== undefined && typeof chatTemplate !== "string") {
    throw invalidField("chatTemplate", chatTemplate, "a text (Jinja source)");
  }
  const size = { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true };
  const kvCacheBytes = readNumber(fields, "kvCacheBytes", size);
  const kvCacheBlocks = readNumber(fields, "kvCacheBlocks", size);
  if (kvCacheBytes !== undefined && kvCacheBlocks !== undefined) {
    throw invalidField("kvCacheBlocks", kvCacheBlocks, "left out where `kvCacheBytes` is given");
  }
  const onProgress = fields["onProgress"] ?? undefined;
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw invalidField("onProgress", onProgress, "a function");
  }
  const sequences = { min: 1, max: MAX_SEQUENCES, integer: true };
  const { origin, source } = readModel(fields["model"]);
  const worker = readWorkerOptions(fields);
  return {
    ...worker,
    onProgress: onProgress as ParsedOptions["onProgress"],
    source,
    request: {
      model: origin,
      chatTemplate,
      ...backend,
      canOpenThreads: worker.canStartMore,
      kvCacheBytes,
      kvCacheBlocks,
      kvCacheDtype: readChoice(fields, "kvCacheDtype", ["f16", "f32"]) ?? "f16",
      blockSize: readChoice(fields, "blockSize", [8, 16, 32]) ?? 16,
      maxSequences: readNumber(fields, "maxSequences", sequences) ?? DEFAULT_MAX_SEQUENCES,
      swapBytes: readNumber(fields, "swapBytes", { ...size, min: 0 }),
      waitingOrder: readChoice(fields, "waitingOrder", ["fcfs", "longest-prefix"] as const),
    },
  };
}

/** Options that say what computes. Those of WASM go with `auto` too, which may choose it. */
function readBackend(
  fields: Fields,
): Pick<LoadRequest, "backend" | "precision" | "threads" | "simd"> {
  const backend = readChoice(fields, "backend", ["auto", "webgpu", "wasm"]) ?? "auto";
  const precision = readChoice(fields, "precision", ["exact", "fast"]);
  const range = { min: 1, max: MAX_THREADS, integer: true };
  const threads = readNumber(fields, "threads", range);
  const simd = readChoice(fields, "simd", ["auto", "plain"]);
  if (backend === "webgpu") {
    if (precision === "fast") {
      const advice = 'WebGPU computes exactly: leave it out, or use `backend: "wasm"`.';
      throw unsupportedField('precision: "fast"', advice);
    }
    for (const [name, value] of Object.entries({ threads, simd })) {
      if (value === undefined) continue;
      throw unsupportedField(name, 'With `backend: "webgpu"` leave it out: it is WASM\'s.');
    }
  }
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  return {
    backend,
    precision,
    threads: threads ?? Math.min(cores, MAX_DEFAULT_THREADS),
    simd: simd ?? "auto",
  };
}

export function readWorkerOptions(
  fields: Fields,
): Pick<ParsedOptions, "createWorker" | "canStartMore" | "timeoutMs" | "signal"> {
  const range = { min: 1, max: 2 ** 31 - 1 };
  return {
    ...readWorker(fields["worker"]),
    timeoutMs: readNumber(fields, "workerTimeoutMs", range) ?? DEFAULT_TIMEOUT_MS,
    signal: readSignal(fields, "signal"),
  };
}

function readWorker(value: unknown): Pick<ParsedOptions, "createWorker" | "canStartMore"> {
  if (value === undefined || value === null) {
    return { createWorker: createInlineWorker, canStartMore: true };
  }
  if (typeof value === "string" || value instanceof URL) {
    const { href } = resolveUrl(value, "worker");
    const createWorker = () => new Worker(href, { name: "quire", type: "module" });
    return { createWorker, canStartMore: true };
  }
  const canStartMore = typeof value === "function";
  const create = canStartMore ? (value as () => unknown) : () => value;
  const made = new WeakSet<object>();
  const createWorker = () => {
    const worker = create();
    // By shape and not by instanceof: a worker may come from another realm.
    const { postMessage, terminate } = Object(worker) as Partial<Worker>;
    const isWorker = typeof postMessage === "function" && typeof terminate === "function";
    if (!isWorker || made.has(worker as Worker)) {
      const allowed = "a Worker, a function that returns a new one each time, or a script's URL";
      throw invalidField("worker", isWorker ? "the same again" : worker, allowed);
    }
    made.add(worker as Worker);
    return worker as Worker;
  };
  return { createWorker, canStartMore };
}

function readModel(value: unknown): { origin: ModelOrigin; source?: ByteSource } {
  if (typeof value === "string" || value instanceof URL) return { origin: readUrl(value) };
  if (value instanceof Blob) {
    const name = "name" in value && typeof value.name === "string" ? value.name : "model.gguf";
    return { origin: { kind: "blob", blob: value, name } };
  }
  if (value instanceof ArrayBuffer) {
    return { origin: { kind: "blob", blob: new Blob([value]), name: "model.gguf" } };
  }
  const allowed = "a URL, File, Blob, ArrayBuffer or ByteSource (name, byteLength, read)";
  if (typeof value !== "object" || value === null) throw invalidField("model", value, allowed);
  const source = value as ByteSource;
  const isSource = typeof source.read === "function" && Number.isSafeInteger(source.byteLength);
  if (!isSource || typeof source.name !== "string") throw invalidField("model", value, allowed);
  const { name, byteLength } = source;
  return { origin: { kind: "page", name, byteLength }, source };
}

function readUrl(value: string | URL): ModelOrigin {
  const url = resolveUrl(value, "model");
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidField("model", url.href, "an http or https URL (pass a file as File or Blob)");
  }
  return { kind: "url", url: url.href };
}

/** Relative to the page: a worker made from a blob has no base of its own. */
function resolveUrl(value: string | URL, field: string): URL {
  try {
    return new URL(value, globalThis.document?.baseURI);
  } catch {
    throw invalidField(field, String(value), "a valid URL");
  }
}
