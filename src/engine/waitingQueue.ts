import { invariant } from "../errors.ts";

/**
 * Milliseconds of waiting that make up for one level of priority. A stream of requests one level better
 * delays the others by this much at most before they are older. Longer than a short answer takes, so that
 * priorities mean something; short enough for nobody to think that the chat hangs.
 */
export const AGING_MS = 5_000;

/** `Queued.heapIndex` of what is in no queue. */
export const NOT_QUEUED = -1;

/** What a waiting queue orders: sequences. */
export interface Queued {
  /** Place among all ever added: what decides between equal keys. */
  readonly arrival: number;
  /** See `queueKey`; must not change while it is queued. */
  readonly queueKey: number;
  /** Place in the heap, or NOT_QUEUED; the queue alone writes it. */
  heapIndex: number;
}

/**
 * Where a sequence stands in the queue; lower goes first. Aging is linear and the same for all, so two
 * sequences never change places while they wait: the key holds for good, and 0 priorities give the order
 * of arrival. Lower priorities are better, as in vLLM.
 */
export function queueKey(sequence: {
  readonly arrivalMs: number;
  readonly priority: number;
}): number {
  return sequence.arrivalMs + sequence.priority * AGING_MS;
}

/**
 * Who waits, in order of `queueKey`, then of arrival: a binary heap in which every member knows its place,
 * so that any of them can be removed. O(log n) a change.
 */
export class WaitingQueue<T extends Queued> {
  readonly #heap: T[] = [];
  /** Changes so far: an iteration must not see one. */
  #numChanges = 0;

  get size(): number {
    return this.#heap.length;
  }

  get first(): T | undefined {
    return this.#heap[0];
  }

  has(member: T): boolean {
    return this.#heap[member.heapIndex] === member;
  }

  push(member: T): void {
    invariant(member.heapIndex === NOT_QUEUED, "A sequence is queued twice.");
    this.#numChanges += 1;
    this.#heap.push(member);
    this.#siftUp(this.#heap.length - 1, member);
  }

  /** Takes out a member, wherever it is. */
  remove(member: T): void {
    const index = member.heapIndex;
    invariant(this.#heap[index] === member, "A sequence is removed from a queue that lacks it.");
    this.#numChanges += 1;
    member.heapIndex = NOT_QUEUED;
    const last = this.#heap.pop()!;
    if (last === member) return;
    if (index > 0 && isBefore(last, this.#heap[(index - 1) >> 1]!)) this.#siftUp(index, last);
    else this.#siftDown(index, last);
  }

  /**
   * All members in order, lazily: the first k cost O(k log k), whatever the size. The queue must not
   * change before the iteration ends; collect what is to be removed.
   */
  *inOrder(): Generator<T, void, undefined> {
    const heap = this.#heap;
    const numChanges = this.#numChanges;
    // Who may come next: children of what was yielded, itself a heap, of places in the first.
    const frontier: number[] = [];
    if (heap.length > 0) frontier.push(0);
    while (frontier.length > 0) {
      const index = frontier[0]!;
      yield heap[index]!;
      invariant(numChanges === this.#numChanges, "The queue changed while it was iterated.");
      // The first child takes its parent's place in the frontier, so a step sifts down once and up once.
      const left = 2 * index + 1;
      if (left < heap.length) placeDown(heap, frontier, left);
      else {
        const last = frontier.pop()!;
        if (frontier.length > 0) placeDown(heap, frontier, last);
      }
      if (left + 1 < heap.length) placeUp(heap, frontier, left + 1);
    }
  }

  /** Throws `internal` unless every member knows its place and none is before its parent. */
  checkIntegrity(): void {
    for (const [index, member] of this.#heap.entries()) {
      invariant(
        member.heapIndex === index,
        `The sequence at ${index} of the waiting queue believes to be at ${member.heapIndex}.`,
      );
      const parent = this.#heap[(index - 1) >> 1];
      invariant(
        parent === undefined || !isBefore(member, parent),
        `The sequence at ${index} of the waiting queue is behind one that comes later.`,
      );
    }
  }

  #siftUp(from: number, member: T): void {
    const heap = this.#heap;
    let index = from;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = heap[parentIndex]!;
      if (!isBefore(member, parent)) break;
      heap[index] = parent;
      parent.heapIndex = index;
      index = parentIndex;
    }
    heap[index] = member;
    member.heapIndex = index;
  }

  #siftDown(from: number, member: T): void {
    const heap = this.#heap;
    let index = from;
    for (;;) {
      let childIndex = 2 * index + 1;
      if (childIndex >= heap.length) break;
      const right = heap[childIndex + 1];
      if (right !== undefined && isBefore(right, heap[childIndex]!)) childIndex += 1;
      const child = heap[childIndex]!;
      if (!isBefore(child, member)) break;
      heap[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    heap[index] = member;
    member.heapIndex = index;
  }
}

function isBefore(a: Queued, b: Queued): boolean {
  return a.queueKey < b.queueKey || (a.queueKey === b.queueKey && a.arrival < b.arrival);
}

/** Replaces the top of a frontier, a heap of indices into `heap`. */
function placeDown(heap: readonly Queued[], frontier: number[], entry: number): void {
  let index = 0;
  for (;;) {
    let child = 2 * index + 1;
    if (child >= frontier.length) break;
    if (
      child + 1 < frontier.length &&
      isBefore(heap[frontier[child + 1]!]!, heap[frontier[child]!]!)
    ) {
      child += 1;
    }
    if (!isBefore(heap[frontier[child]!]!, heap[entry]!)) break;
    frontier[index] = frontier[child]!;
    index = child;
  }
  frontier[index] = entry;
}

/** Adds to a frontier. */
function placeUp(heap: readonly Queued[], frontier: number[], entry: number): void {
  let index = frontier.length;
  while (index > 0) {
    const parent = (index - 1) >> 1;
    if (!isBefore(heap[entry]!, heap[frontier[parent]!]!)) break;
    frontier[index] = frontier[parent]!;
    index = parent;
  }
  frontier[index] = entry;
}
