import { describe, expect, it } from "vitest";
import { A100_13B } from "../costModel.ts";
import { simulate } from "../simulation.ts";
import { countTokens, drive, driveAll, requests, TEST_MODEL } from "../testing/drive.ts";
import { independentTrace, MIXED, SHAREGPT } from "../workloads.ts";
import { Quire } from "./quire.ts";

const MODEL = { ...TEST_MODEL, kvSlots: 512 };

describe("Quire in the lab", () => {
  it("gives every sequence the tokens of the trace, and nothing beyond", async () => {
    const system = new Quire({ model: MODEL, seed: 1 });
    const lengths = [
      [20, 7],
      [33, 1],
      [5, 40],
    ] as const;
    for (const request of requests(lengths)) system.add(request);
    const steps = await driveAll(system);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 7, 1: 1, 2: 40 });
    expect(steps.flatMap(({ finished }) => finished).sort()).toEqual([0, 1, 2]);
    expect(system.engine.stats().kvBlocksUsed).toBe(0);
    // No row for a last token, and nothing computed twice.
    const rows = lengths.reduce((sum, [prompt, output]) => sum + prompt + output - 1, 0);
    expect(system.executor.rows).toBe(rows);
  });

  it("takes the time that the cost model says", async () => {
    const system = new Quire({ model: MODEL, seed: 1 });
    for (const request of requests([[4, 3]])) system.add(request);
    const steps = await driveAll(system);
    expect(steps.map(({ ms }) => ms)).toEqual([10 + 4, 10 + 1, 10 + 1]);
  });

  it("computes the prompt of several samples once, and shares its blocks", async () => {
    const system = new Quire({ model: MODEL, seed: 1 });
    for (const request of requests([[40, 6]], { width: 4 })) system.add(request);
    const steps = await driveAll(system);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 6, 1: 6, 2: 6, 3: 6 });
    expect(system.executor.rows).toBe(40 + 4 * 5);
    // Two full blocks and a third each.
    expect(system.engine.stats().kvBlocksPeak).toBe(2 + 4);
  });

  it("computes a shared prefix once", async () => {
    const system = new Quire({ model: MODEL, seed: 1 });
    const prefix = { id: 3, tokens: 48 };
    const lengths = [
      [60, 4],
      [70, 4],
      [55, 4],
    ] as const;
    const [first, ...others] = requests(lengths, { prefix });
    system.add(first!);
    let nowMs = 0;
    while (system.executor.rows < 60) nowMs += (await drive(system, nowMs)).ms;
    for (const request of others) system.add(request);
    while (system.hasWork) nowMs += (await drive(system, nowMs)).ms;
    expect(system.executor.rows).toBe(48 + 12 + 22 + 7 + 3 * 3);
  });

  it("steers beams so that one is displaced now and then, and the others go on", async () => {
    const system = new Quire({ model: MODEL, seed: 1 });
    for (const request of requests([[20, 100]], { width: 4, isBeam: true })) system.add(request);
    const steps = await driveAll(system);
    expect(steps.at(-1)!.finished).toEqual([0]);
    expect(system.executor.rows).toBe(20 + 4 * 99);
    // Neither as many blocks as four answers, nor as few as one and three tails.
    const { kvBlocksPeak } = system.engine.stats();
    expect(kvBlocksPeak).toBeGreaterThan(8 + 3);
    expect(kvBlocksPeak).toBeLessThan(4 * 8);
  });

  it("leaves nothing behind after a saturated mixture with preemptions", async () => {
    const trace = independentTrace(SHAREGPT, {
      seed: 1,
      count: 150,
      rate: Number.POSITIVE_INFINITY,
      mixture: MIXED,
    });
    const system = new Quire({ model: A100_13B, seed: 1 });
    const { averages } = await simulate(system, trace, { window: "queue" });
    system.engine.checkIntegrity();
    expect(system.engine.stats().preemptions).toBeGreaterThan(0);
    expect(system.engine.stats().kvBlocksUsed).toBe(0);
    expect(averages.tokenStates).toBeGreaterThan(0.5 * averages.total);
    expect(averages.logicalBlocks).toBeGreaterThan(averages.physicalBlocks);
  });
});
