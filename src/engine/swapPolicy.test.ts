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
    for (let i = 0; i < 30; i++) policy.record(4, 40);
    expect(policy.msPerBlock).toBeCloseTo(10, 2);
    for (let i = 0; i < 30; i++) policy.record(4, -40);
    expect(policy.msPerBlock).toBeCloseTo(0, 2);
    expect(policy.msPerBlock).toBeGreaterThanOrEqual(0);
  });

  it("does not hold one bad measurement against swapping for ever", () => {
    const policy = new SwapPolicy(1e6);
    const { msPerBlock: assumed } = policy;
    policy.record(1, 10_000);
    expect(policy.msPerBlock).toBeGreaterThan(1000);
    for (let i = 0; i < 1000; i++) policy.forget();
    expect(policy.msPerBlock).toBeCloseTo(assumed);
  });
});
