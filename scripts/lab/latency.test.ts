import { expect, test } from "vitest";
import { measure, percentile, throughputAtLatency } from "./latency.mjs";

test("percentiles lie between the two nearest values", () => {
  expect(percentile([3, 1, 2], 50)).toBe(2);
  expect(percentile([1, 2], 50)).toBe(1.5);
  expect(percentile([10, 0], 99)).toBeCloseTo(9.9, 10);
  expect(percentile([5], 99)).toBe(5);
  expect(percentile([4, 8, 6], 0)).toBe(4);
  expect(percentile([4, 8, 6], 100)).toBe(8);
});

test("latencies count from the arrival, and requests of the first quarter are left out", () => {
  const request = (arrivalMs: number) => ({
    arrivalMs,
    textStart: 0,
    promptTokens: 1,
    outputTokens: 2,
  });
  const served = (sentMs: number, ...tokenMs: number[]) => ({ sentMs, tokenMs, cachedTokens: 0 });
  const measures = measure(
    [request(0), request(100), request(300)],
    [served(0, 10, 99), served(150, 200, 300), served(310, 350, 500)],
    400,
  );
  expect(measures.meanNormalizedLatency).toBe(100);
  expect(measures.p50NormalizedLatency).toBe(100);
  expect(measures.p50FirstToken).toBe(75);
  expect(measures.p99FirstToken).toBeCloseTo(99.5, 10);
  // Tokens at 200, 300 and 350 of the 300 ms from 100 to 400.
  expect(measures.throughput).toBeCloseTo(10, 10);
});

test("a request without a token is no measurement", () => {
  const requests = [{ arrivalMs: 0, textStart: 0, promptTokens: 1, outputTokens: 1 }];
  expect(() => measure(requests, [{ sentMs: 0, tokenMs: [], cachedTokens: 0 }], 10)).toThrow(
    "Request 0 got no token.",
  );
});

const CURVE = [
  { p99NormalizedLatency: 20, throughput: 100 },
  { p99NormalizedLatency: 40, throughput: 180 },
  { p99NormalizedLatency: 160, throughput: 220 },
];

test("the throughput at a latency lies on the line over its logarithm", () => {
  expect(throughputAtLatency(CURVE, 40)).toEqual({ throughput: 180, bound: "exact" });
  const found = throughputAtLatency(CURVE, 80);
  expect(found.bound).toBe("exact");
  expect(found.throughput).toBeCloseTo(200, 10);
});

test("beyond the measured rates it is known what it is at least, or at most", () => {
  expect(throughputAtLatency(CURVE, 200)).toEqual({ throughput: 220, bound: "least" });
  expect(throughputAtLatency(CURVE, 10)).toEqual({ throughput: 100, bound: "most" });
  const falling = [...CURVE, { p99NormalizedLatency: 170, throughput: 210 }];
  expect(throughputAtLatency(falling, 200)).toEqual({ throughput: 220, bound: "least" });
  expect(() => throughputAtLatency([], 10)).toThrow(RangeError);
});

test("where a curve crosses a latency twice, the lower rate counts", () => {
  const curve = [...CURVE, { p99NormalizedLatency: 30, throughput: 300 }];
  expect(throughputAtLatency(curve, 80).throughput).toBeCloseTo(200, 10);
});
