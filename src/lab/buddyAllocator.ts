import { invariant } from "../errors.ts";

const NONE = -1;

/**
 * Contiguous ranges whose lengths are powers of two: Orca's allocator as the paper models it. The range
 * is laid out as its binary powers, largest first, so every chunk begins at a multiple of its length
 * and its buddy is at `offset ^ length`.
 */
export class BuddyAllocator {
  readonly size: number;
  /** Free slots, in chunks of any length. */
  numFree: number;
  /** First free chunk of each order, and its neighbours in the order's list. */
  readonly #heads: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  /** By offset: order of the free or allocated chunk that begins there. */
  readonly #freeOrders: Int8Array;
  readonly #usedOrders: Int8Array;

  /** `size` slots, 1 to 2 ** 30. */
  constructor(size: number) {
    invariant(Number.isInteger(size) && size >= 1, `A buddy allocator of ${size} slots.`);
    this.size = size;
    this.numFree = 0;
    this.#heads = new Int32Array(31).fill(NONE);
    this.#next = new Int32Array(size);
    this.#previous = new Int32Array(size);
    this.#freeOrders = new Int8Array(size).fill(NONE);
    this.#usedOrders = new Int8Array(size).fill(NONE);
    for (let order = 30, offset = 0; order >= 0; order--) {
      if ((size & (1 << order)) === 0) continue;
      this.#insert(offset, order);
      this.numFree += 1 << order;
      offset += 1 << order;
    }
  }

  /** Offset of a chunk for `length` slots (rounded up to a power of two); undefined if there is none. */
  allocate(length: number): number | undefined {
    const order = orderOf(length);
    let found = order;
    while (found < this.#heads.length && this.#heads[found] === NONE) found += 1;
    if (found >= this.#heads.length) return undefined;
    const offset = this.#heads[found]!;
    this.#remove(offset, found);
    // The lower half is split on; the upper halves become free.
    while (found > order) {
      found -= 1;
      this.#insert(offset + (1 << found), found);
    }
    this.#usedOrders[offset] = order;
    this.numFree -= 1 << order;
    return offset;
  }

  /** Takes a chunk back and joins it with its buddy as long as that is free. */
  free(offset: number): void {
    let order = this.#usedOrders[offset] ?? NONE;
    invariant(order !== NONE, `No chunk is allocated at ${offset}.`);
    this.#usedOrders[offset] = NONE;
    this.numFree += 1 << order;
    let start = offset;
    for (;;) {
      const buddy = start ^ (1 << order);
      if (this.#freeOrders[buddy] !== order) break;
      this.#remove(buddy, order);
      start = Math.min(start, buddy);
      order += 1;
    }
    this.#insert(start, order);
  }

  #insert(offset: number, order: number): void {
    const head = this.#heads[order]!;
    this.#next[offset] = head;
    this.#previous[offset] = NONE;
    if (head !== NONE) this.#previous[head] = offset;
    this.#heads[order] = offset;
    this.#freeOrders[offset] = order;
  }

  #remove(offset: number, order: number): void {
    const next = this.#next[offset]!;
    const previous = this.#previous[offset]!;
    if (next !== NONE) this.#previous[next] = previous;
    if (previous === NONE) this.#heads[order] = next;
    else this.#next[previous] = next;
    this.#freeOrders[offset] = NONE;
  }
}

/** log2 of the smallest power of two that is `length` or more. */
function orderOf(length: number): number {
  return length <= 1 ? 0 : 32 - Math.clz32(length - 1);
}

/** The smallest power of two that is `value` or more. */
export function nextPowerOfTwo(value: number): number {
  return 2 ** orderOf(value);
}
