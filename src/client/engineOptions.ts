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

/** Options of whatever starts a worker, checked. */
interface ParsedWorkerOptions {
  /** A new one with each call; throws at the second where `canStartMore` is false. */
  readonly createWorker: () => Worker;
  readonly canStartMore: boolean;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Options of `createEngine`, checked. */
export interface ParsedOptions extends ParsedWorkerOptions {
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

const WORKER_FIELDS = new Set(["worker", "workerTimeoutMs", "signal"]);

/** Workers that an engine has had: each is ended with it, and while it lives is its own. */
const taken = new WeakSet<object>();

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
  if (chatTemplate !== undefined && (typeof chatTemplate !== "string" || chatTemplate === "")) {
    throw invalidField("chatTemplate", chatTemplate, "a text (Jinja source), not empty");
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
  const worker = readWorkerFields(fields);
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

/** Options of a function that starts a worker for itself. Throws `invalid-argument`, `unsupported`. */
export function readWorkerOptions(value: unknown): ParsedWorkerOptions {
  const fields = readObject(value, "options");
  refuseUnknown(fields, WORKER_FIELDS);
  return readWorkerFields(fields);
}

function readWorkerFields(fields: Fields): ParsedWorkerOptions {
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
  const createWorker = () => {
    const worker = create();
    if (!isWorker(worker) || taken.has(worker)) {
      const allowed =
        "a Worker that no engine has had, a function that returns a new one each time, or a script's URL";
      throw invalidField(
        "worker",
        isWorker(worker) ? "one that an engine has had" : worker,
        allowed,
      );
    }
    taken.add(worker);
    return worker;
  };
  return { createWorker, canStartMore };
}

/** By shape and not by instanceof: a worker may come from another realm. */
function isWorker(value: unknown): value is Worker {
  const methods: Partial<Worker> = Object(value);
  return [methods.postMessage, methods.terminate, methods.addEventListener].every(
    (method) => typeof method === "function",
  );
}

function readModel(value: unknown): { origin: ModelOrigin; source?: ByteSource } {
  if (typeof value === "string" || value instanceof URL) {
    return { origin: { kind: "url", url: readModelUrl(value, "model") } };
  }
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

/** The absolute URL that a model is stored by. */
export function readModelUrl(value: unknown, field: string): string {
  const allowed = "an http or https URL (pass a file as File or Blob)";
  if (typeof value !== "string" && !(value instanceof URL)) {
    throw invalidField(field, value, allowed);
  }
  const url = resolveUrl(value, field);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidField(field, url.href, allowed);
  }
  return url.href;
}

/** Relative to the page: a worker made from a blob has no base of its own. */
function resolveUrl(value: string | URL, field: string): URL {
  // An empty one would be the page itself.
  if (String(value).trim() === "") throw invalidField(field, value, "a valid URL");
  try {
    return new URL(value, globalThis.document?.baseURI);
  } catch {
    throw invalidField(field, String(value), "a valid URL");
  }
}
