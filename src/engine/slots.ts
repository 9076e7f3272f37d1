import { invariant } from "../errors.ts";

/** Slots of the back end: who may be resident. Some of the free ones are promised to forks to come. */
export class Slots {
  readonly numSlots: number;
  readonly #free: number[];
  #numReserved = 0;

  constructor(numSlots: number) {
    this.numSlots = numSlots;
    this.#free = Array.from({ length: numSlots }, (_, i) => i).reverse();
  }

  /** Free slots that are promised to nobody. */
  get numFree(): number {
    return this.#free.length - this.#numReserved;
  }

  /** Promises `count` of the free slots; a negative count takes promises back. */
  reserve(count: number): void {
    this.#numReserved += count;
    invariant(
      this.#numReserved >= 0 && this.#numReserved <= this.#free.length,
      `${this.#numReserved} of ${this.#free.length} free slots are reserved.`,
    );
  }

  take(): number {
    const slot = this.#free.pop();
    invariant(slot !== undefined, "A slot is taken but none is free.");
    return slot;
  }

  release(slot: number): void {
    this.#free.push(slot);
  }

  /** Throws `internal` unless the free slots, the promises and the `taken` slots add up. */
  checkIntegrity(taken: readonly number[], numReserved: number): void {
    const all = new Set([...this.#free, ...taken]);
    invariant(
      all.size === this.numSlots && this.#free.length + taken.length === this.numSlots,
      `${this.#free.length} free and ${taken.length} taken slots share ${all.size} slots of ${this.numSlots}.`,
    );
    invariant(
      numReserved === this.#numReserved,
      `${this.#numReserved} slots are reserved; sequences ask for ${numReserved}.`,
    );
  }
}
