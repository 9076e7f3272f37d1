interface Sample {
  readonly at: number;
  readonly tokens: number;
}

/** Kept however old, so that a slow stream has a rate, too. */
const MIN_SAMPLES = 4;

/** Tokens a second over the recent past. Times are milliseconds of one monotonic clock. */
export class TokenMeter {
  readonly #windowMs: number;
  readonly #samples: Sample[] = [];

  constructor(windowMs: number) {
    this.#windowMs = windowMs;
  }

  add(at: number, tokens: number): void {
    this.#samples.push({ at, tokens });
  }

  /**
   * The first tokens in view only start the clock: what came before them is not known. Undefined
   * until there are later ones.
   */
  rate(now: number): number | undefined {
    const samples = this.#samples;
    while (samples.length > MIN_SAMPLES && samples[0]!.at < now - this.#windowMs) samples.shift();
    const [first, ...later] = samples;
    if (first === undefined || later.length === 0 || now <= first.at) return undefined;
    const tokens = later.reduce((sum, sample) => sum + sample.tokens, 0);
    return (tokens * 1000) / (now - first.at);
  }

  reset(): void {
    this.#samples.length = 0;
  }
}
