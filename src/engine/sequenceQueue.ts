import type { Sequence } from "./sequence.ts";

/** Sequences in order. Intrusive: every operation is O(1), and a sequence is in one queue at a time. */
export class SequenceQueue {
  #first: Sequence | undefined;
  #last: Sequence | undefined;
  #size = 0;

  get first(): Sequence | undefined {
    return this.#first;
  }

  get last(): Sequence | undefined {
    return this.#last;
  }

  get size(): number {
    return this.#size;
  }

  pushBack(sequence: Sequence): void {
    sequence.previous = this.#last;
    if (this.#last === undefined) this.#first = sequence;
    else this.#last.next = sequence;
    this.#last = sequence;
    this.#size += 1;
  }

  /** Takes out a sequence that is in this queue. */
  remove(sequence: Sequence): void {
    const { previous, next } = sequence;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    sequence.previous = undefined;
    sequence.next = undefined;
    this.#size -= 1;
  }

  *[Symbol.iterator](): Iterator<Sequence> {
    for (let sequence = this.#first; sequence !== undefined; sequence = sequence.next) {
      yield sequence;
    }
  }
}
