import type { LabRequest } from "./workloads.ts";

/** Below this many taken entries the array is not cut. */
const MIN_GARBAGE = 1024;

/** First in, first out; taking from the front does not move the others. */
export class RequestQueue {
  #items: LabRequest[] = [];
  #start = 0;

  get size(): number {
    return this.#items.length - this.#start;
  }

  get first(): LabRequest | undefined {
    return this.#items[this.#start];
  }

  /** From the first on, numbered from 0. */
  *entries(): Generator<readonly [index: number, request: LabRequest]> {
    for (let i = this.#start; i < this.#items.length; i++) {
      yield [i - this.#start, this.#items[i]!];
    }
  }

  /** `place` 0 is the first. */
  at(place: number): LabRequest | undefined {
    return this.#items[this.#start + place];
  }

  /** Takes one out of the middle; what is behind it moves. */
  remove(place: number): void {
    if (place === 0) this.shift();
    else this.#items.splice(this.#start + place, 1);
  }

  push(request: LabRequest): void {
    this.#items.push(request);
  }

  shift(): LabRequest | undefined {
    const request = this.#items[this.#start];
    if (request === undefined) return undefined;
    this.#start += 1;
    if (this.#start >= MIN_GARBAGE && this.#start * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#start);
      this.#start = 0;
    }
    return request;
  }
}
