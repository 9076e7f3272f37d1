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
  readonly createWorker: () => Worker;
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
  "kvCacheBytes",
  "kvCacheBlocks",
  "kvCacheDtype",
  "blockSize",
  "maxSequences",
  "worker",
  "workerTimeoutMs",
  "signal",
  "onProgress",
]);

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_SEQUENCES = 16;
const MAX_SEQUENCES = 256;

/** Throws `invalid-argument`, `unsupported`. */
export function readEngineOptions(value: unknown): ParsedOptions {
  const fields = readObject(value, "options");
  refuseUnknown(fields, ENGINE_FIELDS);
  const backend = readChoice(fields, "backend", ["auto", "webgpu", "wasm"]) ?? "auto";
  if (backend === "wasm") {
    throw unsupportedField('backend: "wasm"', 'Use "webgpu" or "auto".');
  }
  const precision = fields["precision"];
  if (precision === "fast") throw unsupportedField('precision: "fast"', 'Use "exact".');
  readChoice(fields, "precision", ["exact"]);
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
  return {
    ...readWorkerOptions(fields),
    onProgress: onProgress as ParsedOptions["onProgress"],
    source,
    request: {
      model: origin,
      chatTemplate,
      backend,
      kvCacheBytes,
      kvCacheBlocks,
      kvCacheDtype: readChoice(fields, "kvCacheDtype", ["f16", "f32"]) ?? "f16",
      blockSize: readChoice(fields, "blockSize", [8, 16, 32]) ?? 16,
      maxSequences: readNumber(fields, "maxSequences", sequences) ?? DEFAULT_MAX_SEQUENCES,
    },
  };
}

export function readWorkerOptions(
  fields: Fields,
): Pick<ParsedOptions, "createWorker" | "timeoutMs" | "signal"> {
  const range = { min: 1, max: 2 ** 31 - 1 };
  return {
    createWorker: readWorker(fields["worker"]),
    timeoutMs: readNumber(fields, "workerTimeoutMs", range) ?? DEFAULT_TIMEOUT_MS,
    signal: readSignal(fields, "signal"),
  };
}

function readWorker(value: unknown): () => Worker {
  if (value === undefined || value === null) return createInlineWorker;
  const create = typeof value === "function" ? (value as () => unknown) : () => value;
  return () => {
    const worker = create();
    // By shape and not by instanceof: a worker may come from another realm.
    const { postMessage, terminate } = Object(worker) as Partial<Worker>;
    if (typeof postMessage === "function" && typeof terminate === "function") {
      return worker as Worker;
    }
    throw invalidField("worker", worker, "a Worker or a function that returns one");
  };
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

/** Relative to the page: a worker made from a blob has no base of its own. */
function readUrl(value: string | URL): ModelOrigin {
  let url: URL;
  try {
    url = new URL(value, globalThis.document?.baseURI);
  } catch {
    throw invalidField("model", String(value), "a valid URL");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidField("model", url.href, "an http or https URL (pass a file as File or Blob)");
  }
  return { kind: "url", url: url.href };
}
