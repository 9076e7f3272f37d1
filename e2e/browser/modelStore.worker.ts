/** @file The worker of modelStore.test.ts: calls the store and tells what came out. */
import { QuireError } from "../../src/errors.ts";
import {
  type DownloadProgress,
  deleteModel,
  listModels,
  openModelUrl,
  type StoredModel,
} from "../../src/weights/modelStore.ts";

export interface Opened {
  readonly byteLength: number;
  readonly sha256: string;
  readonly progress: readonly DownloadProgress[];
}

export interface OpenRequest {
  readonly url: string;
  /** No retries after a failure. */
  readonly once?: boolean;
  /** Abort when so many bytes are stored. */
  readonly abortAt?: number;
  /** Have the server break off the connection when so many bytes are stored. */
  readonly dropAt?: number;
  /** Behave like a window that has no private file system. */
  readonly withoutStore?: boolean;
}

export type Call =
  | ({ readonly method: "open" } & OpenRequest)
  | { readonly method: "list" }
  | { readonly method: "delete"; readonly url: string };

export type Outcome = {
  readonly value?: Opened | readonly StoredModel[] | boolean;
  readonly error?: { readonly code: string; readonly message: string; readonly data: object };
};

async function open(request: OpenRequest): Promise<Opened> {
  if (request.withoutStore) {
    navigator.storage.getDirectory = () =>
      Promise.reject(new DOMException("no store here", "SecurityError"));
  }
  const controller = new AbortController();
  const progress: DownloadProgress[] = [];
  let dropAt = request.dropAt ?? Number.POSITIVE_INFINITY;
  const source = await openModelUrl(request.url, {
    retryDelaysMs: request.once ? [] : [20, 20, 20],
    signal: controller.signal,
    onProgress: (event) => {
      progress.push(event);
      if (event.loaded >= (request.abortAt ?? Number.POSITIVE_INFINITY)) controller.abort();
      if (event.loaded < dropAt) return;
      dropAt = Number.POSITIVE_INFINITY;
      void fetch(new URL("/drop", request.url));
    },
  });
  const bytes = await source.read(0, source.byteLength);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { byteLength: source.byteLength, sha256, progress };
}

async function run(call: Call): Promise<Outcome> {
  try {
    if (call.method === "open") return { value: await open(call) };
    if (call.method === "list") return { value: await listModels() };
    return { value: await deleteModel(call.url) };
  } catch (error) {
    if (!(error instanceof QuireError)) throw error;
    return { error: { code: error.code, message: error.message, data: error.data } };
  }
}

self.onmessage = async ({ data }: MessageEvent<Call>) => self.postMessage(await run(data));
