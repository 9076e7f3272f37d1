import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_SESSIONS, OutputEstimate, PRIOR_MAX_TOKENS, PRIOR_RATIO } from "./outputEstimate.ts";

/** Seeded uniforms in (0, 1): mulberry32. */
function createUniforms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

function lognormals(count: number, median: number, sigma: number): number[] {
  const uniform = createUniforms(1);
  return Array.from({ length: count }, () => {
    const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    return Math.round(median * Math.exp(sigma * normal));
  });
}

/** The mean of what lengths of at least `length` exceed it by, each clipped: what is to be estimated. */
function meanExcess(lengths: readonly number[], length: number, maxTokens: number): number {
  const rest = lengths.filter((other) => other >= length);
  return rest.reduce((sum, other) => sum + Math.min(other, maxTokens) - length, 0) / rest.length;
}

describe("OutputEstimate", () => {
  it("starts from a fraction of the limit", () => {
    const estimate = new OutputEstimate();
    expect(estimate.remaining(0, 1_000)).toBeCloseTo(PRIOR_RATIO * 1_000, 2);
    expect(estimate.remaining(400, 1_000)).toBeCloseTo(PRIOR_RATIO * 600, 2);
    expect(estimate.remaining(0, 1_000_000)).toBeCloseTo(PRIOR_RATIO * PRIOR_MAX_TOKENS, 1);
  });

  it("learns constant lengths within 20 answers", () => {
    for (const length of [0, 1, 15, 100, 777, 5_000]) {
      const estimate = new OutputEstimate();
      for (let i = 0; i < 20; i++) estimate.record(length);
      for (const done of [0, Math.floor(length / 2), length]) {
        expect(Math.abs(estimate.remaining(done, 8_192) - (length - done))).toBeLessThan(0.01);
      }
      // A limit in the same bin, and one below it.
      for (const limit of [length + 1, length, Math.floor(length / 2)]) {
        const clipped = Math.min(length, limit);
        expect(Math.abs(estimate.remaining(0, limit) - clipped)).toBeLessThan(0.01);
      }
    }
  });

  it("learns lognormal lengths: the mean of what is left, at any place", () => {
    const lengths = lognormals(4_000, 150, 0.9);
    const estimate = new OutputEstimate();
    // An average over 100 answers is noisy; its own average is not.
    const places = [0, 20, 100, 300, 800];
    const sums = places.map(() => 0);
    for (const [i, length] of lengths.entries()) {
      estimate.record(length);
      if (i < 500) continue;
      for (const [p, done] of places.entries()) sums[p]! += estimate.remaining(done, 2_048);
    }
    for (const [p, done] of places.entries()) {
      const truth = meanExcess(lengths, done, 2_048);
      const mean = sums[p]! / (lengths.length - 500);
      expect(Math.abs(mean - truth) / truth, `after ${done} tokens`).toBeLessThan(0.1);
    }
  });

  it("is the conditional mean of what was recorded, up to bins and decay", () => {
    const lengths = lognormals(60, 200, 0.5);
    const estimate = new OutputEstimate();
    for (const length of lengths) estimate.record(length);
    for (const maxTokens of [150, 400, 4_096]) {
      for (const done of [0, 60, 130]) {
        const truth = meanExcess(lengths, done, maxTokens);
        expect(Math.abs(estimate.remaining(done, maxTokens) - truth)).toBeLessThan(0.15 * truth);
      }
    }
  });

  it("follows a change: after 300 other answers the old ones hardly count", () => {
    const estimate = new OutputEstimate();
    for (let i = 0; i < 1_000; i++) estimate.record(1_000);
    for (let i = 0; i < 300; i++) estimate.record(10);
    expect(estimate.remaining(0, 4_096)).toBeLessThan(0.06 * 1_000 + 10);
    for (let i = 0; i < 700; i++) estimate.record(10);
    expect(estimate.remaining(0, 4_096)).toBeCloseTo(10, 0);
  });

  it("lets a session's own lengths go first", () => {
    const estimate = new OutputEstimate();
    for (let i = 0; i < 200; i++) estimate.record(50);
    for (let i = 0; i < 5; i++) estimate.record(900, "essays");
    const essays = estimate.remaining(0, 4_096, "essays");
    const others = estimate.remaining(0, 4_096, "other");
    expect(essays).toBeGreaterThan(600);
    expect(others).toBe(estimate.remaining(0, 4_096));
    expect(others).toBeLessThan(110);
    for (let i = 0; i < 50; i++) estimate.record(900, "essays");
    expect(estimate.remaining(0, 4_096, "essays")).toBeGreaterThan(essays);
  });

  it("expects one that outlived all others to go on for as long as it has, within its limit", () => {
    const estimate = new OutputEstimate();
    for (let i = 0; i < 100; i++) estimate.record(100);
    expect(estimate.remaining(500, 100_000)).toBeCloseTo(500, 1);
    expect(estimate.remaining(500, 600)).toBeCloseTo(PRIOR_RATIO * 100, 1);
  });

  it("forgets the sessions that are longest unused, and gives their memory to others", () => {
    const estimate = new OutputEstimate();
    for (let i = 0; i < 100; i++) estimate.record(10);
    const isKnown = (name: string) => estimate.remaining(0, 4_096, name) > 100;
    estimate.record(1_000, "first");
    estimate.record(1_000, "second");
    for (let i = 2; i < MAX_SESSIONS; i++) estimate.record(1_000, `session ${i}`);
    expect([isKnown("first"), isKnown("second")]).toEqual([true, true]);
    estimate.record(1_000, "first"); // used again
    for (let i = 0; i < 600; i++) estimate.record(10);
    estimate.record(10, "new");
    expect([isKnown("first"), isKnown("second")]).toEqual([true, false]);
    // The new one's histogram was the second's, and holds nothing of it.
    expect(isKnown("new")).toBe(false);
    for (let i = 0; i < 9; i++) estimate.record(1_000, "new");
    expect([isKnown("new"), isKnown("second")]).toEqual([true, false]);
  });

  it("stays between 0 and what the limit leaves, and is 0 at the limit", () => {
    const length = fc.oneof(fc.nat(40), fc.nat(5_000), fc.nat(3_000_000));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(length, fc.option(fc.constantFrom("a", "b"), { nil: undefined }))),
        length,
        length,
        (records, done, maxTokens) => {
          const estimate = new OutputEstimate();
          for (const [tokens, session] of records) estimate.record(tokens, session);
          for (const session of [undefined, "a", "c"]) {
            const remaining = estimate.remaining(done, maxTokens, session);
            expect(remaining).toBeGreaterThanOrEqual(0);
            expect(remaining).toBeLessThanOrEqual(Math.max(0, maxTokens - done) * (1 + 1e-9));
            if (done >= maxTokens) expect(remaining).toBe(0);
          }
        },
      ),
    );
  });

  it("keeps its numbers sound over very many answers", () => {
    const estimate = new OutputEstimate();
    estimate.record(3_000, "a");
    for (let i = 0; i < 20_000; i++) estimate.record(7, "a");
    expect(estimate.remaining(0, 4_096, "a")).toBeCloseTo(7, 3);
    // Nothing is left of the first answer, not even a subnormal weight.
    expect(estimate.remaining(100, 4_096, "a")).toBeCloseTo(100, 3);
  });
});
