import { invariant } from "../errors.ts";
import type { FinishReason } from "./sequence.ts";
import type { SequenceTimes } from "./sequenceTimes.ts";

/** Values from MIN_VALUE to MAX_VALUE fall into buckets whose bounds grow by this factor. */
const BUCKET_GROWTH = 1.05;
const MIN_VALUE = 1e-6;
const MAX_VALUE = 1e6;
const LOG_GROWTH = Math.log(BUCKET_GROWTH);
const NUM_BUCKETS = Math.ceil(Math.log(MAX_VALUE / MIN_VALUE) / LOG_GROWTH);

/** How far a quantile between MIN_VALUE and MAX_VALUE may be off, relative to the true one: 2.5 %. */
export const QUANTILE_ERROR = Math.sqrt(BUCKET_GROWTH) - 1;

/** Requests over which the recent hit rate is taken (vLLM's default). */
export const RECENT_REQUESTS = 1_000;

/** Plain data about a distribution. All 0 while it is empty. */
export interface HistogramSummary {
  readonly count: number;
  readonly sum: number;
  readonly mean: number;
  readonly p50: number;
  readonly p99: number;
}

/**
 * A distribution of values >= 0 (seconds, tokens) in fixed log-spaced buckets: O(1) a value, 4.5 KB
 * for ever. Quantiles are off by QUANTILE_ERROR at most, by 1e-6 at most below MIN_VALUE, and lie within
 * what was recorded. Count, sum, mean, minimum and maximum are exact.
 */
export class LatencyHistogram {
  readonly #counts = new Float64Array(NUM_BUCKETS + 1);
  #count = 0;
  #sum = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = 0;

  get count(): number {
    return this.#count;
  }

  get sum(): number {
    return this.#sum;
  }

  /** 0 while it is empty. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** Records a value, `times` times. */
  record(value: number, times = 1): void {
    invariant(value >= 0 && times > 0, `A histogram got the value ${value}, ${times} times.`);
    this.#counts[bucketOf(value)]! += times;
    this.#count += times;
    this.#sum += value * times;
    this.#min = Math.min(this.#min, value);
    this.#max = Math.max(this.#max, value);
  }

  /** The least value that a share `p` of all values does not exceed (nearest rank); 0 while it is empty. */
  quantile(p: number): number {
    if (this.#count === 0) return 0;
    const rank = Math.max(1, Math.ceil(p * this.#count));
    let bucket = 0;
    for (let below = this.#counts[0]!; below < rank && bucket < NUM_BUCKETS; ) {
      bucket += 1;
      below += this.#counts[bucket]!;
    }
    return Math.min(Math.max(middleOf(bucket), this.#min), this.#max);
  }

  summary(): HistogramSummary {
    const { count, sum, mean } = this;
    return { count, sum, mean, p50: this.quantile(0.5), p99: this.quantile(0.99) };
  }
}

/** 0 for what is below MIN_VALUE. */
function bucketOf(value: number): number {
  if (value < MIN_VALUE) return 0;
  return Math.min(1 + Math.floor(Math.log(value / MIN_VALUE) / LOG_GROWTH), NUM_BUCKETS);
}

/** The value whose relative distance to both bounds is the same. */
function middleOf(bucket: number): number {
  return bucket === 0 ? 0 : MIN_VALUE * BUCKET_GROWTH ** (bucket - 0.5);
}

/** 0 where a clock that should be monotonic went back: statistics are no reason to fail. */
function secondsBetween(startMs: number, endMs: number): number {
  return Math.max(0, endMs - startMs) / 1000;
}

/** Share of looked-up prompt tokens that were found, over the most recent requests. */
class RecentHitRate {
  readonly #queries: Float64Array;
  readonly #hits: Float64Array;
  /** Requests recorded since the last reset. */
  #numRequests = 0;
  #numQueries = 0;
  #numHits = 0;

  constructor(numRequests: number) {
    this.#queries = new Float64Array(numRequests);
    this.#hits = new Float64Array(numRequests);
  }

  get value(): number {
    return this.#numQueries === 0 ? 0 : this.#numHits / this.#numQueries;
  }

  record(queries: number, hits: number): void {
    if (queries === 0) return;
    const place = this.#numRequests % this.#queries.length;
    this.#numQueries += queries - this.#queries[place]!;
    this.#numHits += hits - this.#hits[place]!;
    this.#queries[place] = queries;
    this.#hits[place] = hits;
    this.#numRequests += 1;
  }

  reset(): void {
    this.#queries.fill(0);
    this.#hits.fill(0);
    this.#numRequests = this.#numQueries = this.#numHits = 0;
  }
}

/** All metrics, as plain data under vLLM's names (without its prefix `vllm:`). Times in seconds. */
export type MetricsSnapshot = ReturnType<EngineMetrics["snapshot"]>;

/** Counters and distributions since the engine was made. Every record is O(1). */
export class EngineMetrics {
  readonly #timeToFirstToken = new LatencyHistogram();
  readonly #interToken = new LatencyHistogram();
  readonly #endToEnd = new LatencyHistogram();
  readonly #queue = new LatencyHistogram();
  readonly #prefill = new LatencyHistogram();
  readonly #decode = new LatencyHistogram();
  readonly #iterationTokens = new LatencyHistogram();
  readonly #finished: Record<FinishReason, number> = {
    stop: 0,
    length: 0,
    abort: 0,
    deadline: 0,
    error: 0,
  };
  readonly #recent: RecentHitRate;
  #promptTokens = 0;
  #generationTokens = 0;
  #prefixQueries = 0;
  #prefixHits = 0;
  #preemptions = 0;
  #swaps = 0;
  #drafts = 0;
  #acceptedDrafts = 0;

  constructor(options: { readonly recentRequests?: number } = {}) {
    this.#recent = new RecentHitRate(options.recentRequests ?? RECENT_REQUESTS);
  }

  /** A request came with so many prompt tokens. */
  recordPrompt(numTokens: number): void {
    this.#promptTokens += numTokens;
  }

  /** A sequence is admitted; only its first admission counts. */
  recordScheduled(times: SequenceTimes, nowMs: number): void {
    if (times.scheduledMs !== undefined) return;
    times.scheduledMs = nowMs;
    this.#queue.record(secondsBetween(times.arrivalMs, nowMs));
  }

  /** A request's prompt was looked up in the prefix cache, at its first admission: tokens, and those found. */
  recordLookup(numTokens: number, numHits: number): void {
    this.#prefixQueries += numTokens;
    this.#prefixHits += numHits;
    this.#recent.record(numTokens, numHits);
  }

  /** The prefix cache was reset: the recent hit rate starts anew, counters go on. */
  recordPrefixReset(): void {
    this.#recent.reset();
  }

  /**
   * Tokens of a sequence are delivered; none is no news. Tokens that come together, accepted drafts,
   * share the time since the last ones.
   */
  recordTokens(times: SequenceTimes, numTokens: number, nowMs: number): void {
    if (numTokens === 0) return;
    this.#generationTokens += numTokens;
    if (times.lastTokenMs === undefined) {
      times.firstTokenMs = nowMs;
      this.#timeToFirstToken.record(secondsBetween(times.arrivalMs, nowMs));
    } else {
      this.#interToken.record(secondsBetween(times.lastTokenMs, nowMs) / numTokens, numTokens);
    }
    times.lastTokenMs = nowMs;
  }

  /** A sequence has ended. Times between events that it never saw are not recorded. */
  recordFinish(times: SequenceTimes, reason: FinishReason, nowMs: number): void {
    this.#finished[reason] += 1;
    this.#endToEnd.record(secondsBetween(times.arrivalMs, nowMs));
    const { scheduledMs, firstTokenMs, lastTokenMs } = times;
    if (scheduledMs === undefined || firstTokenMs === undefined) return;
    this.#prefill.record(secondsBetween(scheduledMs, firstTokenMs));
    this.#decode.record(secondsBetween(firstTokenMs, lastTokenMs!));
  }

  /** A step ran with so many rows. */
  recordStep(numRows: number): void {
    this.#iterationTokens.record(numRows);
  }

  recordPreemption(): void {
    this.#preemptions += 1;
  }

  /** A sequence's blocks went to host memory. */
  recordSwap(): void {
    this.#swaps += 1;
  }

  recordDrafts(numDrafts: number, numAccepted: number): void {
    this.#drafts += numDrafts;
    this.#acceptedDrafts += numAccepted;
  }

  snapshot() {
    return {
      time_to_first_token_seconds: this.#timeToFirstToken.summary(),
      inter_token_latency_seconds: this.#interToken.summary(),
      e2e_request_latency_seconds: this.#endToEnd.summary(),
      request_queue_time_seconds: this.#queue.summary(),
      request_prefill_time_seconds: this.#prefill.summary(),
      request_decode_time_seconds: this.#decode.summary(),
      /** Rows of a step, prompts' and generated tokens' together. */
      iteration_tokens_total: this.#iterationTokens.summary(),
      /** Sequences ended, by finish reason. */
      request_success: { ...this.#finished },
      prompt_tokens: this.#promptTokens,
      /** Prompt tokens that were not computed, because the prefix cache had them. */
      prompt_tokens_cached: this.#prefixHits,
      generation_tokens: this.#generationTokens,
      num_preemptions: this.#preemptions,
      num_swaps: this.#swaps,
      prefix_cache_queries: this.#prefixQueries,
      prefix_cache_hits: this.#prefixHits,
      /** Hits over queries of the most recent requests, 0..1; 0 if there are none. */
      prefix_cache_recent_hit_rate: this.#recent.value,
      spec_decode_num_draft_tokens: this.#drafts,
      spec_decode_num_accepted_tokens: this.#acceptedDrafts,
    };
  }
}
