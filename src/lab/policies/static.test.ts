import { describe, expect, it } from "vitest";
import { A100_13B } from "../costModel.ts";
import type { System } from "../system.ts";
import { countTokens, drive, driveAll, requests, TEST_MODEL } from "../testing/drive.ts";
import { createFasterTransformer } from "./fasterTransformer.ts";
import { createHf } from "./hf.ts";
import { Serial } from "./serial.ts";

function fill(system: System, ...args: Parameters<typeof requests>): void {
  for (const request of requests(...args)) system.add(request);
}

describe("FasterTransformer", () => {
  it("runs as many sequences as fit at their longest, in order of arrival", async () => {
    const system = createFasterTransformer({ model: A100_13B });
    fill(
      system,
      Array.from({ length: 10 }, () => [10, 5] as const),
    );
    await drive(system);
    expect([system.batchSize, system.numWaiting]).toEqual([7, 3]);
  });

  it("pads prompts, runs until the longest answer is there, and returns all at once", async () => {
    const system = createFasterTransformer({ model: { ...TEST_MODEL, kvSlots: 4096 } });
    fill(system, [
      [4, 2],
      [9, 5],
      [3, 1],
    ]);
    const steps = await driveAll(system);
    expect(steps[0]!.ms).toBe(10 + 2 * 9);
    expect(steps[4]!.ms).toBe(10 + 2); // the first has been done for three steps
    expect(steps.map(({ finished }) => finished)).toEqual([[], [], [], [], [0, 1], [2]]);
    expect(Object.fromEntries(countTokens(steps))).toEqual({ 0: 2, 1: 5, 2: 1 });
  });

  it("counts samples as sequences", async () => {
    const system = createFasterTransformer({ model: A100_13B });
    fill(
      system,
      Array.from({ length: 10 }, () => [10, 5] as const),
      { width: 3 },
    );
    await drive(system);
    expect(system.batchSize).toBe(2);
  });
});

describe("Hugging Face Transformers", () => {
  it("keeps the longest prompt and the longest answer of a batch within 2048 tokens together", async () => {
    const system = createHf({ model: A100_13B });
    fill(system, [
      [1000, 40],
      [10, 1000],
      [1100, 10], // 1100 + 1000 would be too long
      [5, 5],
    ]);
    await drive(system);
    expect([system.batchSize, system.numWaiting]).toEqual([2, 2]);
  });
});

describe("serial", () => {
  it("runs one sequence at a time, the samples of a request one after the other", async () => {
    const system = new Serial({ model: TEST_MODEL });
    fill(
      system,
      [
        [4, 2],
        [3, 1],
      ],
      { width: 2 },
    );
    const steps = await driveAll(system);
    expect(steps.map(({ tokens }) => tokens)).toEqual([[0], [0], [1], [1], [2], [3]]);
    expect(steps.map(({ finished }) => finished)).toEqual([[], [], [], [0], [], [1]]);
    expect(steps.map(({ ms }) => ms)).toEqual([14, 11, 14, 11, 13, 13]);
  });
});
