import { describe, expect, it } from "vitest";
import { countTokens, drive, driveAll, requests, TEST_MODEL } from "../testing/drive.ts";
import { Tgi } from "./tgi.ts";

function tgi(kvSlots: number): Tgi {
  return new Tgi({ model: { ...TEST_MODEL, kvSlots } });
}

function fill(system: Tgi, ...args: Parameters<typeof requests>): void {
  for (const request of requests(...args)) system.add(request);
}

describe("TGI", () => {
  it("reserves prompt and answer, in order of arrival, in half of the memory", async () => {
    const system = tgi(100);
    fill(system, [
      [10, 10],
      [10, 10],
      [10, 10],
    ]);
    await drive(system);
    expect([system.batchSize, system.numWaiting]).toEqual([2, 1]);
    expect(system.kv).toMatchObject({ tokenStates: 20, reserved: 20 });
  });

  it("runs prompts alone while the others pause", async () => {
    const system = tgi(1000);
    fill(system, [[10, 50]]);
    await drive(system);
    fill(
      system,
      [
        [7, 3],
        [6, 3],
      ],
      {},
    );
    // Two wait, and one runs: more than 1.2 times as many, so they need not wait.
    const { ms } = await drive(system);
    expect(ms).toBe(10 + 13);
  });

  it("lets too few wait for 20 steps", async () => {
    const system = tgi(2000);
    fill(
      system,
      Array.from({ length: 5 }, () => [10, 100] as const),
    );
    await drive(system);
    fill(system, [[8, 2]], { index: 5, firstSequence: 5 });
    let steps = 0;
    for (;;) {
      const { tokens } = await drive(system);
      if (tokens.includes(5)) break;
      steps += 1;
    }
    expect(steps).toBe(20);
  });

  it("runs samples as requests of their own and ends with the last", async () => {
    const system = tgi(100);
    fill(system, [[10, 10]], { width: 3 });
    const steps = await driveAll(system);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 10, 1: 10, 2: 10 });
    const last = steps.findIndex(({ finished }) => finished.length > 0);
    expect(last).toBe(steps.length - 1);
    // Two fit at first.
    expect(steps[0]!.tokens).toEqual([0, 1]);
  });
});
