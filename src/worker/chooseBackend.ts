import type { Backend } from "../backends/ops.ts";
import type { WasmBackendOptions } from "../backends/wasm/options.ts";
import type { WebGpuOptions } from "../backends/webgpu/backend.ts";
import { familyFor } from "../backends/webgpu/kernelChoice.ts";
import { QuireError, throwIfAborted } from "../errors.ts";
import { batchDependence, type NumericsReport } from "./numerics.ts";
import type { LoadRequest } from "./protocol.ts";

/** The back end of an engine, and why that one: one or two sentences for people. */
export interface ChosenBackend {
  readonly backend: Backend;
  readonly reason: string;
}

/** What there is to choose from. */
export interface BackendParts {
  readonly createWebGpu: (
    options: Pick<WebGpuOptions, "allowFallback" | "kernels">,
  ) => Promise<Backend>;
  readonly createWasm: (options: WasmBackendOptions, signal?: AbortSignal) => Promise<Backend>;
  /** Throws if the back end computes wrong. */
  readonly check: (backend: Backend) => Promise<NumericsReport>;
  /** True where memory can be shared with other workers. */
  readonly isIsolated: boolean;
}

export type BackendRequest = Pick<
  LoadRequest,
  "backend" | "precision" | "threads" | "canOpenThreads" | "simd"
>;

const BY_NAME = "It was asked for by name.";

/** Where a workgroup's threads together go wrong, each may do right alone. */
const FLAT = { family: "flat" } as const;
const BY_FLAT = "All steps run kernels that share no work within a workgroup. With the others:";

/**
 * The one variant of the linear kernels where several do not give the same bits: rows of 4 at a time cost
 * one row little, where weights are what is waited for, and many rows twice the widest variant's at most.
 */
const ONE_VARIANT = { ...FLAT, linearTokens: [4] } as const;
const BY_ONE_VARIANT =
  "This adapter computes rows differently in kernels for one, two, four and eight of them, so that all steps run the one for four.";

/**
 * Opens and checks a back end. `auto` is WebGPU on an adapter that is no software, as long as a device
 * can be had and computes right; in every other case it is WASM. What comes up is never changed
 * afterwards. Throws the last error, which under `auto` names the reasons against both.
 */
export async function chooseBackend(
  request: BackendRequest,
  parts: BackendParts,
  openThreads: WasmBackendOptions["openThreads"],
  signal: AbortSignal,
): Promise<ChosenBackend> {
  switch (request.backend) {
    case "webgpu":
      return openWebGpu(parts, true, BY_NAME);
    case "wasm":
      return openWasm(request, parts, openThreads, signal, BY_NAME);
    case "auto":
      return chooseAutomatically(request, parts, openThreads, signal);
  }
}

async function chooseAutomatically(
  request: BackendRequest,
  parts: BackendParts,
  openThreads: WasmBackendOptions["openThreads"],
  signal: AbortSignal,
): Promise<ChosenBackend> {
  let reason: string;
  try {
    return await openWebGpu(parts, false, "WebGPU offers an adapter that is no software.");
  } catch (error) {
    reason = error instanceof QuireError ? error.message : `WebGPU failed: ${String(error)}`;
  }
  throwIfAborted(signal, "Opening a back end");
  try {
    return await openWasm(request, parts, openThreads, signal, reason);
  } catch (error) {
    if (!(error instanceof QuireError) || error.code === "aborted") throw error;
    const message = `${error.message} Nor is WebGPU chosen: ${reason}`;
    throw new QuireError(error.code, message, error.data, { cause: error });
  }
}

/** The adapter's kernels if they are right; else the flat ones, if need be in one variant. */
async function openWebGpu(
  parts: BackendParts,
  allowFallback: boolean,
  why: string,
): Promise<ChosenBackend> {
  const usual = await parts.createWebGpu({ allowFallback });
  let flat = usual;
  let reason = why;
  if (usual.adapter !== null && familyFor(usual.adapter) === "workgroup") {
    try {
      return { backend: await checked(usual, parts), reason };
    } catch (error) {
      if (!isVerdict(error)) throw error;
      reason = `${why} ${BY_FLAT} ${error.message}`;
    }
    flat = await parts.createWebGpu({ allowFallback, kernels: FLAT });
  }
  const right = await ifRight(flat, parts);
  if (right !== undefined) return { backend: right, reason };
  const steady = await parts.createWebGpu({ allowFallback, kernels: ONE_VARIANT });
  return { backend: await checked(steady, parts), reason: `${why} ${BY_ONE_VARIANT}` };
}

async function openWasm(
  request: BackendRequest,
  parts: BackendParts,
  openThreads: WasmBackendOptions["openThreads"],
  signal: AbortSignal,
  why: string,
): Promise<ChosenBackend> {
  const onlyOne = reasonForOneThread(request, parts);
  const reason = onlyOne === undefined ? why : `${why} ${onlyOne}`;
  const threads = onlyOne === undefined ? request.threads : 1;
  const options = { precision: request.precision ?? "fast", simd: request.simd, openThreads };
  // Checked on one thread: the bits do not depend on their number, and each thread starts only once.
  const single = await checked(await parts.createWasm({ ...options, threads: 1 }, signal), parts);
  if (threads === 1) return { backend: single, reason };
  single.dispose();
  return { backend: await parts.createWasm({ ...options, threads }, signal), reason };
}

/** Undefined where as many threads as wanted can be had. */
function reasonForOneThread(
  { threads, canOpenThreads }: BackendRequest,
  { isIsolated }: BackendParts,
): string | undefined {
  if (threads === 1) return undefined;
  if (!isIsolated) {
    return "It has one thread: the page is not cross-origin isolated (COOP and COEP headers).";
  }
  if (canOpenThreads) return undefined;
  return "It has one thread: the `worker` option is a Worker, of which only one can be had; a function or URL allows more.";
}

/** The kernels are wrong, or do not compile: no accident, which would end otherwise the next time. */
function isVerdict(error: unknown): error is QuireError {
  return (
    error instanceof QuireError && (error.code === "adapter-numerics" || error.code === "internal")
  );
}

/** Refuses a back end whose rows depend on their company. */
async function checked(backend: Backend, parts: BackendParts): Promise<Backend> {
  const right = await ifRight(backend, parts);
  if (right === undefined) throw batchDependence(backend);
  return right;
}

/** Undefined, with the back end disposed, if its rows depend on their company. Throws if they are wrong. */
async function ifRight(backend: Backend, { check }: BackendParts): Promise<Backend | undefined> {
  let isRight = false;
  try {
    isRight = (await check(backend)).isBatchInvariant;
  } finally {
    if (!isRight) backend.dispose();
  }
  return isRight ? backend : undefined;
}
