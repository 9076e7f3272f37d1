import { describe, expect, it } from "vitest";
import { findKnee } from "./knee.ts";
import { Serial } from "./policies/serial.ts";
import { simulate } from "./simulation.ts";
import { requests, TEST_MODEL } from "./testing/drive.ts";
import type { LabRequest, Trace } from "./workloads.ts";

/** One after the other, `gapMs` apart. */
function spaced(count: number, gapMs: number): Trace {
  const lengths = Array.from({ length: count }, () => [5, 4] as const);
  return requests(lengths).map((request) => ({ ...request, arrivalMs: request.index * gapMs }));
}

/** What one of these takes on the serial system: a prompt's step and three more. */
const SERVICE_MS = 15 + 3 * 11;

describe("simulate", () => {
  it("gives each sequence its time from arrival to finish, by output token", async () => {
    const metrics = await simulate(new Serial({ model: TEST_MODEL }), spaced(10, 100));
    expect(metrics.normalizedLatency).toBeCloseTo(SERVICE_MS / 1000 / 4, 12);
    expect(metrics.simulatedMs).toBe(9 * 100 + SERVICE_MS);
    expect(metrics.steps).toBe(40);
    expect(metrics.overloaded).toBe(false);
  });

  it("counts waiting", async () => {
    const metrics = await simulate(
      new Serial({ model: TEST_MODEL }),
      requests([
        [5, 4],
        [5, 4],
      ]),
    );
    expect(metrics.normalizedLatency).toBeCloseTo((1.5 * SERVICE_MS) / 1000 / 4, 12);
  });

  it("weighs a request by its sequences", async () => {
    const trace: LabRequest[] = requests([[5, 4]], { width: 3 });
    const metrics = await simulate(new Serial({ model: TEST_MODEL }), trace);
    expect(metrics.normalizedLatency).toBeCloseTo((3 * SERVICE_MS) / 1000 / 4, 12);
  });

  it("leaves out who arrives during the warm-up", async () => {
    const trace = [...requests([[500, 4]]), ...spaced(3, 2000).slice(1)];
    const options = { warmupMs: 1000 };
    const metrics = await simulate(new Serial({ model: TEST_MODEL }), trace, options);
    expect(metrics.normalizedLatency).toBeCloseTo(SERVICE_MS / 1000 / 4, 12);
  });

  it("gives up once the mean must end above the limit, and not before", async () => {
    const trace = spaced(5000, SERVICE_MS / 2);
    const full = await simulate(new Serial({ model: TEST_MODEL }), trace);
    const below = { giveUpAbove: 1.01 * full.normalizedLatency };
    const above = { giveUpAbove: 0.5 * full.normalizedLatency };
    const kept = await simulate(new Serial({ model: TEST_MODEL }), trace, below);
    expect(kept.normalizedLatency).toBe(full.normalizedLatency);
    const given = await simulate(new Serial({ model: TEST_MODEL }), trace, above);
    expect(given.overloaded).toBe(true);
    expect(given.normalizedLatency).toBe(Number.POSITIVE_INFINITY);
    expect(given.steps).toBeLessThan(full.steps);
  });

  it("measures throughput and memory over the window's time", async () => {
    const trace = requests(Array.from({ length: 100 }, () => [5, 4] as const));
    const { throughput, averages } = await simulate(new Serial({ model: TEST_MODEL }), trace, {
      window: "queue",
    });
    expect(Math.abs((throughput * SERVICE_MS) / 1000 - 1)).toBeLessThan(0.02);
    // 5 tokens for 15 ms, then 6, 7, 8 for 11 ms each.
    expect(averages.tokenStates).toBeCloseTo((5 * 15 + 21 * 11) / SERVICE_MS, 1);
    expect(averages.batchSize).toBe(1);
  });

  it("collects times to the first and between tokens if asked", async () => {
    const metrics = await simulate(new Serial({ model: TEST_MODEL }), spaced(4, 100), {
      times: true,
    });
    expect(metrics.timeToFirstToken.count).toBe(4);
    expect(metrics.timeToFirstToken.percentile(0.5)).toBeCloseTo(15, 0);
    expect(metrics.timeBetweenTokens.count).toBe(12);
    expect(metrics.timeBetweenTokens.max).toBeCloseTo(11, 9);
  });
});

describe("findKnee", () => {
  it("finds the rate at which a queue begins to grow, to 5 %", async () => {
    for (const guess of [3, 20, 100]) {
      const { rate, points } = await findKnee({
        createSystem: () => new Serial({ model: TEST_MODEL }),
        createTrace: (rate) => spaced(2000, 1000 / rate),
        limit: (2 * SERVICE_MS) / 1000 / 4,
        warmupMs: 0,
        guess,
      });
      const capacity = 1000 / SERVICE_MS;
      expect(rate / capacity).toBeGreaterThan(0.95);
      expect(rate / capacity).toBeLessThan(1.001);
      expect(points.map((point) => point.rate)).toEqual(
        points.map((point) => point.rate).sort((a, b) => a - b),
      );
    }
  });
});
