/** Buckets grow by this factor: percentiles are right to half of it. */
const GROWTH = 1.02;
const SMALLEST = 0.01;

/** Counts of positive values in geometric buckets: percentiles of millions of values in little memory. */
export class Histogram {
  readonly #counts: number[] = [];
  count = 0;
  max = 0;

  add(value: number): void {
    const scaled = Math.max(1, value / SMALLEST);
    const bucket = Math.floor(Math.log(scaled) / Math.log(GROWTH));
    while (this.#counts.length <= bucket) this.#counts.push(0);
    this.#counts[bucket]! += 1;
    this.count += 1;
    this.max = Math.max(this.max, value);
  }

  /** The value that a part of all values is at or below, to 1 %; 0 without values. */
  percentile(part: number): number {
    let seen = 0;
    for (const [bucket, count] of this.#counts.entries()) {
      seen += count;
      if (seen >= part * this.count && seen > 0) {
        return Math.min(this.max, SMALLEST * GROWTH ** (bucket + 0.5));
      }
    }
    return 0;
  }
}
