import { describe, expect, it } from "vitest";
import { A100_13B } from "../costModel.ts";
import { countTokens, drive, driveAll, requests, TEST_MODEL } from "../testing/drive.ts";
import { Orca, type OrcaKnowledge } from "./orca.ts";

function orca(knowledge: OrcaKnowledge, kvSlots: number): Orca {
  return new Orca({ model: { ...TEST_MODEL, kvSlots }, knowledge, seed: 1 });
}

function fill(system: Orca, ...args: Parameters<typeof requests>): void {
  for (const request of requests(...args)) system.add(request);
}

describe("Orca", () => {
  it("(Max) reserves the longest sequence: seven in the paper's 15,700 slots", async () => {
    const system = new Orca({ model: A100_13B, knowledge: "max", seed: 1 });
    fill(
      system,
      Array.from({ length: 20 }, () => [10, 30] as const),
    );
    await drive(system);
    expect([system.batchSize, system.numWaiting]).toEqual([7, 13]);
    // Each has written 10 of 2048, will write 30 more, and never the rest.
    expect(system.kv).toMatchObject({ tokenStates: 70, reserved: 210, internal: 7 * (2048 - 40) });
  });

  it("(Pow2) reserves the prompt and the answer's next power of two", async () => {
    const system = orca("pow2", 64);
    fill(system, [[10, 25]]);
    await drive(system);
    expect(system.kv).toMatchObject({ tokenStates: 10, reserved: 25, internal: 32 - 25 });
  });

  it("(Pow2) never reserves more than the longest sequence", async () => {
    const system = orca("pow2", 4096);
    fill(system, [[100, 1100]]);
    await drive(system);
    expect(system.kv.internal).toBe(2048 - 1200);
  });

  it("(Oracle) reserves exactly what will be written", async () => {
    const system = orca("oracle", 64);
    fill(system, [[10, 25]]);
    await drive(system);
    expect(system.kv).toMatchObject({ tokenStates: 10, reserved: 25, internal: 0 });
  });

  it("changes its batch at every step, in order of arrival, and stops at the first that does not fit", async () => {
    const system = orca("oracle", 64);
    fill(system, [
      [20, 12], // 32
      [40, 20], // 64: does not fit beside it
      [5, 3], // would fit
    ]);
    const steps = await driveAll(system);
    expect(steps[0]!.tokens).toEqual([0]);
    const order = steps.flatMap(({ finished }) => finished);
    expect(order).toEqual([0, 1, 2]);
    // The second and third begin in the step after the first has ended.
    expect(steps[11]!.finished).toEqual([0]);
    expect(steps[12]!.tokens).toEqual([1]);
  });

  it("gives everyone all tokens, the first with the prompt, and frees everything", async () => {
    const system = orca("oracle", 64);
    fill(system, [
      [8, 5],
      [8, 9],
      [3, 1],
    ]);
    const steps = await driveAll(system);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 5, 1: 9, 2: 1 });
    expect(steps).toHaveLength(9);
    expect(steps[0]!.ms).toBe(10 + 8 + 8 + 3);
    expect(steps[1]!.ms).toBe(10 + 2);
  });

  it("keeps samples in chunks of their own, all or none of them", async () => {
    const system = orca("oracle", 64);
    fill(
      system,
      [
        [10, 6],
        [10, 6],
      ],
      { width: 3 },
    );
    await drive(system);
    // Four chunks of 16 are there; the second request would need three more.
    expect([system.batchSize, system.numWaiting]).toEqual([1, 1]);
    expect(system.kv.tokenStates).toBe(30);
  });
});
