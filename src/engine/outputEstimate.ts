/**
 * Share of its limit that a sequence is believed to use before anything is known: SGLang's first
 * `new_token_ratio`.
 */
export const PRIOR_RATIO = 0.7;

/** The prior of a limit above this is that of this one (SGLang's clip of `max_new_tokens`). */
export const PRIOR_MAX_TOKENS = 4_096;

/** Sessions that are remembered; the longest unused one is forgotten first. */
export const MAX_SESSIONS = 128;

/** Weight that older lengths keep when one is recorded: about the last 100 answers count, and 5 of a session. */
const RETENTION = 0.99;
const SESSION_RETENTION = 0.8;

/** What all sequences together say counts as much as this many answers of a session. */
const SHARED_ANSWERS = 2;

/** Weight of the prior beside one recorded answer; halved by each answer. */
const PRIOR_ANSWERS = 1;

/** Weight of the guess for a sequence that has outlived all known ones: next to nothing beside data. */
const OUTLIVED_ANSWERS = 1e-6;

/** Less than this counts for nothing; keeps what decays from becoming a subnormal number. */
const LEAST_WEIGHT = 1e-9;

/** Lengths below this have a bin each; from there on every octave has as many bins, up to 2 ** LAST_OCTAVE. */
const BINS_PER_OCTAVE = 16;
const FIRST_OCTAVE = 4; // log2(BINS_PER_OCTAVE)
const LAST_OCTAVE = 20;
const NUM_BINS = (LAST_OCTAVE - FIRST_OCTAVE + 1) * BINS_PER_OCTAVE;

/**
 * Expected output lengths, learned from the sequences that have ended: what admission needs to know how
 * many blocks those that run will still take.
 */
export class OutputEstimate {
  readonly #all = new LengthHistogram(RETENTION);
  /** In order of their last record. */
  readonly #sessions = new Map<string, LengthHistogram>();
  /** Weight of the prior beside what was recorded. */
  #priorAnswers = PRIOR_ANSWERS;

  /** A sequence has ended by itself, by a stop or its limit, after so many output tokens. */
  record(numOutputTokens: number, session?: string): void {
    this.#all.record(numOutputTokens);
    this.#priorAnswers /= 2;
    if (session !== undefined) this.#touch(session).record(numOutputTokens);
  }

  /**
   * Output tokens that a sequence is expected to add to the `numOutputTokens` that it has: the mean over
   * recorded lengths of at least as many, each clipped to `maxTokens`. A session's own lengths go before
   * the others'. Between 0 and maxTokens - numOutputTokens; O(1), allocates nothing.
   */
  remaining(numOutputTokens: number, maxTokens: number, session?: string): number {
    const most = maxTokens - numOutputTokens;
    if (most <= 0) return 0;
    const prior = PRIOR_RATIO * Math.min(most, PRIOR_MAX_TOKENS);
    const all = this.#all;
    all.readTail(numOutputTokens, maxTokens);
    // One that has outlived all others is expected to go on for as long as it has.
    let weight = all.tailWeight + this.#priorAnswers + OUTLIVED_ANSWERS;
    let tokens =
      all.tailTokens +
      this.#priorAnswers * prior +
      OUTLIVED_ANSWERS * Math.min(prior, numOutputTokens);
    const own = session === undefined ? undefined : this.#sessions.get(session);
    if (own !== undefined) {
      own.readTail(numOutputTokens, maxTokens);
      const scale = SHARED_ANSWERS / (all.weight + this.#priorAnswers);
      weight = weight * scale + own.tailWeight;
      tokens = tokens * scale + own.tailTokens;
    }
    return tokens / weight;
  }

  /** The session's histogram, made the latest. A forgotten session's memory is used again. */
  #touch(session: string): LengthHistogram {
    let histogram = this.#sessions.get(session);
    if (histogram !== undefined) {
      this.#sessions.delete(session);
    } else if (this.#sessions.size < MAX_SESSIONS) {
      histogram = new LengthHistogram(SESSION_RETENTION);
    } else {
      const [oldest, forgotten] = this.#sessions.entries().next().value!;
      this.#sessions.delete(oldest);
      forgotten.clear();
      histogram = forgotten;
    }
    this.#sessions.set(session, histogram);
    return histogram;
  }
}

/**
 * Lengths with decaying weights. The lengths of a bin, which differ by 1/16 at most, count as their mean;
 * sums over all bins from one on make every tail O(1).
 */
class LengthHistogram {
  readonly #retention: number;
  readonly #weights = new Float64Array(NUM_BINS);
  readonly #tokens = new Float64Array(NUM_BINS);
  /** Sums of the two over the bins from the index on. */
  readonly #weightsFrom = new Float64Array(NUM_BINS + 1);
  readonly #tokensFrom = new Float64Array(NUM_BINS + 1);
  /** What `readTail` found. */
  tailWeight = 0;
  tailTokens = 0;

  constructor(retention: number) {
    this.#retention = retention;
  }

  get weight(): number {
    return this.#weightsFrom[0]!;
  }

  record(length: number): void {
    const newest = binOf(length);
    for (let bin = NUM_BINS - 1; bin >= 0; bin--) {
      let weight = this.#weights[bin]! * this.#retention;
      let tokens = this.#tokens[bin]! * this.#retention;
      if (weight < LEAST_WEIGHT) weight = tokens = 0;
      if (bin === newest) {
        weight += 1;
        tokens += length;
      }
      this.#weights[bin] = weight;
      this.#tokens[bin] = tokens;
      this.#weightsFrom[bin] = this.#weightsFrom[bin + 1]! + weight;
      this.#tokensFrom[bin] = this.#tokensFrom[bin + 1]! + tokens;
    }
  }

  /** Weight of the lengths from `length` on, and the sum of what they exceed it by, clipped to `limit`. */
  readTail(length: number, limit: number): void {
    const first = binOf(length);
    const last = binOf(limit);
    this.tailWeight = this.#weightsFrom[last + 1]!;
    this.tailTokens = this.tailWeight * (limit - length);
    this.#addBin(first, length, limit);
    if (last === first) return;
    this.#addBin(last, length, limit);
    const weight = this.#weightsFrom[first + 1]! - this.#weightsFrom[last]!;
    const tokens = this.#tokensFrom[first + 1]! - this.#tokensFrom[last]!;
    this.tailWeight += weight;
    this.tailTokens += tokens - weight * length;
  }

  clear(): void {
    this.#weights.fill(0);
    this.#tokens.fill(0);
    this.#weightsFrom.fill(0);
    this.#tokensFrom.fill(0);
  }

  #addBin(bin: number, length: number, limit: number): void {
    const weight = this.#weights[bin]!;
    const mean = this.#tokens[bin]! / weight;
    // Half a token is rounding, as means of decayed sums go. An empty bin's mean is NaN, and not above.
    if (mean > length - 0.5) {
      this.tailWeight += weight;
      this.tailTokens += weight * Math.max(0, Math.min(mean, limit) - length);
    }
  }
}

/** Linear below BINS_PER_OCTAVE, then BINS_PER_OCTAVE a power of two. */
function binOf(length: number): number {
  if (length < BINS_PER_OCTAVE) return length;
  const octave = 31 - Math.clz32(length);
  const place = (length >>> (octave - FIRST_OCTAVE)) - BINS_PER_OCTAVE;
  return Math.min((octave - FIRST_OCTAVE + 1) * BINS_PER_OCTAVE + place, NUM_BINS - 1);
}
