import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EngineMetrics, LatencyHistogram, QUANTILE_ERROR } from "./metrics.ts";
import { createTimes } from "./sequenceTimes.ts";

describe("LatencyHistogram", () => {
  it("gives quantiles within its error, and exact counts, sums and means", () => {
    const value = fc.oneof(
      fc.double({ min: -6, max: 6, noNaN: true }).map((exponent) => 10 ** exponent),
      fc.double({ min: 0, max: 5, noNaN: true }),
      fc.nat(500),
    );
    const shares = [0, 0.01, 0.5, 0.9, 0.99, 1];
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 200, size: "max" }), (values) => {
        const histogram = new LatencyHistogram();
        let sum = 0;
        for (const one of values) {
          histogram.record(one);
          sum += one;
        }
        expect(histogram.count).toBe(values.length);
        expect(histogram.sum).toBe(sum);
        expect(histogram.mean).toBe(sum / values.length);
        const sorted = [...values].sort((a, b) => a - b);
        for (const p of shares) {
          const truth = sorted[Math.max(1, Math.ceil(p * sorted.length)) - 1]!;
          const error = Math.abs(histogram.quantile(p) - truth);
          expect(error).toBeLessThanOrEqual(truth * QUANTILE_ERROR * (1 + 1e-9) + 1e-6);
        }
      }),
      { numRuns: 500 },
    );
    expect(QUANTILE_ERROR).toBeLessThan(0.025);
  });

  it("stays within what was recorded, and is exact for a constant", () => {
    const histogram = new LatencyHistogram();
    for (let i = 0; i < 10; i++) histogram.record(0.0371);
    expect(histogram.summary()).toMatchObject({ p50: 0.0371, p99: 0.0371, count: 10 });
    histogram.record(5e7); // beyond the buckets
    expect(histogram.quantile(1)).toBeLessThanOrEqual(5e7);
    expect(histogram.quantile(1)).toBeGreaterThan(9e5);
  });

  it("takes a value several times at once", () => {
    const [one, other] = [new LatencyHistogram(), new LatencyHistogram()];
    for (let i = 0; i < 3; i++) one.record(0.25);
    other.record(0.25, 3);
    expect(other.summary()).toEqual(one.summary());
  });

  it("is all 0 while it is empty, and refuses what is no value", () => {
    const histogram = new LatencyHistogram();
    expect(histogram.summary()).toEqual({ count: 0, sum: 0, mean: 0, p50: 0, p99: 0 });
    expect(() => histogram.record(-1)).toThrow(/the value -1/);
    expect(() => histogram.record(Number.NaN)).toThrow(/the value NaN/);
    expect(() => histogram.record(1, 0)).toThrow(/0 times/);
  });
});

describe("EngineMetrics", () => {
  it("times a request from its arrival to its end, in seconds", () => {
    const metrics = new EngineMetrics();
    const times = createTimes(1_000);
    metrics.recordPrompt(30);
    metrics.recordScheduled(times, 1_250);
    metrics.recordScheduled(times, 1_900); // after a preemption: no second queue time
    metrics.recordTokens(times, 0, 1_400); // a prompt's chunk
    metrics.recordTokens(times, 1, 1_500);
    metrics.recordTokens(times, 1, 1_600);
    metrics.recordTokens(times, 3, 1_900); // two drafts were accepted: 0.1 s a token
    metrics.recordFinish(times, "stop", 2_000);
    const snapshot = metrics.snapshot();
    const once = (value: number) => ({ count: 1, sum: value, mean: value, p50: value, p99: value });
    expect(snapshot.request_queue_time_seconds).toEqual(once(0.25));
    expect(snapshot.time_to_first_token_seconds).toEqual(once(0.5));
    expect(snapshot.request_prefill_time_seconds).toEqual(once(0.25));
    expect(snapshot.request_decode_time_seconds).toEqual(once(0.4));
    expect(snapshot.e2e_request_latency_seconds).toEqual(once(1));
    expect(snapshot.inter_token_latency_seconds.count).toBe(4);
    expect(snapshot.inter_token_latency_seconds.sum).toBeCloseTo(0.4);
    expect(snapshot.inter_token_latency_seconds.p99).toBeCloseTo(0.1);
    expect(snapshot.prompt_tokens).toBe(30);
    expect(snapshot.generation_tokens).toBe(5);
    expect(snapshot.request_success).toEqual({
      stop: 1,
      length: 0,
      abort: 0,
      deadline: 0,
      error: 0,
    });
  });

  it("times only what happened to a request that ends early", () => {
    const metrics = new EngineMetrics();
    metrics.recordFinish(createTimes(0), "abort", 400); // while it waited
    const admitted = createTimes(0);
    metrics.recordScheduled(admitted, 100);
    metrics.recordFinish(admitted, "deadline", 400); // before its first token
    const snapshot = metrics.snapshot();
    expect(snapshot.e2e_request_latency_seconds.count).toBe(2);
    expect(snapshot.request_queue_time_seconds.count).toBe(1);
    expect(snapshot.request_prefill_time_seconds.count).toBe(0);
    expect(snapshot.request_decode_time_seconds.count).toBe(0);
    expect(snapshot.request_success).toMatchObject({ abort: 1, deadline: 1 });
  });

  it("counts steps, preemptions, swaps and drafts", () => {
    const metrics = new EngineMetrics();
    metrics.recordStep(40);
    metrics.recordStep(8);
    metrics.recordPreemption();
    metrics.recordSwap();
    metrics.recordDrafts(4, 3);
    metrics.recordDrafts(4, 0);
    expect(metrics.snapshot()).toMatchObject({
      iteration_tokens_total: { count: 2, sum: 48 },
      num_preemptions: 1,
      num_swaps: 1,
      spec_decode_num_draft_tokens: 8,
      spec_decode_num_accepted_tokens: 3,
    });
  });

  it("gives the hit rate of the most recent requests; others drop out, empty ones do not count", () => {
    const metrics = new EngineMetrics({ recentRequests: 5 });
    const rate = () => metrics.snapshot().prefix_cache_recent_hit_rate;
    expect(rate()).toBe(0);
    metrics.recordLookup(20, 9);
    expect(rate()).toBeCloseTo(0.45);
    for (let i = 0; i < 4; i++) metrics.recordLookup(20, 4);
    expect(rate()).toBeCloseTo(0.25);
    metrics.recordLookup(0, 0); // would drop the first one if it counted
    expect(rate()).toBeCloseTo(0.25);
    metrics.recordLookup(10, 2); // the first drops out
    expect(rate()).toBeCloseTo(18 / 90);
    metrics.recordPrefixReset();
    expect(rate()).toBe(0);
    metrics.recordLookup(10, 5);
    expect(metrics.snapshot()).toMatchObject({
      prefix_cache_recent_hit_rate: 0.5,
      prefix_cache_queries: 120,
      prefix_cache_hits: 32,
      prompt_tokens_cached: 32,
    });
  });

  it("is plain data that does not change later", () => {
    const metrics = new EngineMetrics();
    const before = metrics.snapshot();
    metrics.recordFinish(createTimes(0), "length", 1);
    expect(before.request_success.length).toBe(0);
    expect(JSON.parse(JSON.stringify(before))).toEqual(before);
    expect(structuredClone(before)).toEqual(before);
  });
});
