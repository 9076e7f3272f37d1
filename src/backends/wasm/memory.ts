import { QuireError } from "../../errors.ts";

/** Bytes of a page of WebAssembly memory. */
const PAGE_BYTES = 65536;
/** 32-bit addresses. */
export const MAX_MEMORY_BYTES = 65536 * PAGE_BYTES;

/**
 * A memory of just `byteLength` bytes, zero, that never grows: phones refuse reservations that are
 * larger than need be. Undefined if the machine does not have as much.
 */
export function allocateMemory(
  byteLength: number,
  shared: boolean,
): WebAssembly.Memory | undefined {
  const pages = Math.ceil(byteLength / PAGE_BYTES);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
  } catch {
    // A RangeError, a TypeError (more pages than there are at all), or Firefox's string "out of memory".
    return undefined;
  }
}

/** What a plan needs of memory, in bytes. */
export interface MemoryNeed {
  readonly weights: number;
  readonly kvPool: number;
  readonly scratch: number;
}

/** The coded error for a plan that does not fit, with the numbers and what to lower. */
export function outOfMemory({ weights, kvPool, scratch }: MemoryNeed): QuireError {
  const need = weights + kvPool + scratch;
  const numbers = `weights ${weights}, KV pool ${kvPool} at the least, scratch ${scratch} bytes`;
  const message =
    need > MAX_MEMORY_BYTES
      ? `The model needs ${need} bytes (${numbers}); WebAssembly addresses at most ${MAX_MEMORY_BYTES}. Use a smaller model or stronger quantisation, or lower maxSequences.`
      : `The browser gave no ${need} bytes of memory (${numbers}). Close other tabs, lower kvCacheBytes or maxSequences, or use a smaller model.`;
  return new QuireError("out-of-memory", message, {
    need,
    limit: MAX_MEMORY_BYTES,
    weights,
    kvPool,
    scratch,
  });
}
