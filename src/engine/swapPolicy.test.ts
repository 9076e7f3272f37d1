import { describe, expect, it } from "vitest";
import { SwapPolicy } from "./swapPolicy.ts";

describe("SwapPolicy", () => {
  it("counts both ways, in rows", () => {
    const policy = new SwapPolicy(3e6);
    const { msPerBlock } = policy;
    expect(msPerBlock).toBeGreaterThan(0);
    expect(new SwapPolicy(6e6).msPerBlock).toBeCloseTo(2 * msPerBlock);
    expect(policy.costInRows(4, 2)).toBeCloseTo((2 * 4 * msPerBlock) / 2);
  });

  it("takes a move for unpayable until it is known what a row costs", () => {
    expect(new SwapPolicy(0).costInRows(1, 0)).toBe(Number.POSITIVE_INFINITY);
  });

  it("learns what a block costs, and never that it brings something", () => {
    const policy = new SwapPolicy(1e6);
    for (let i = 0; i < 30; i++) policy.record(4, 45, 5);
    expect(policy.msPerBlock).toBeCloseTo(10, 2);
    for (let i = 0; i < 30; i++) policy.record(4, 5, 45);
    expect(policy.msPerBlock).toBeCloseTo(0, 2);
    expect(policy.msPerBlock).toBeGreaterThanOrEqual(0);
  });

  it("leads back to the assumption while nothing is measured", () => {
    const policy = new SwapPolicy(1e6);
    const { msPerBlock: assumed } = policy;
    for (let i = 0; i < 30; i++) policy.record(1, 1000, 0);
    expect(policy.msPerBlock).toBeGreaterThan(500);
    for (let i = 0; i < 1000; i++) policy.forget();
    expect(policy.msPerBlock).toBeCloseTo(assumed);
  });

  it("does not give swapping up for one step that slept: it is tried again at the next preemption", () => {
    const policy = new SwapPolicy(369_000);
    const stepMs = 25;
    const msPerRow = 1;
    policy.record(4, 3_600_000, stepMs);
    // A victim of 64 tokens in 4 blocks.
    expect(policy.costInRows(4, msPerRow)).toBeLessThan(64);
  });
});
