import { describe, expect, it } from "vitest";
import { A100_13B, A100_66B, A100_175B, BROWSER, stepMs } from "./costModel.ts";

describe("cost models", () => {
  it("of the OPT models have the paper's table 1: bytes a token, slots, memory", () => {
    // 800 KiB a token, as the paper has it; slots times that is its KV memory to 5 %.
    expect(A100_13B.kvBytesPerToken).toBe(800 * 1024);
    for (const [model, gigabytes] of [
      [A100_13B, 12],
      [A100_66B, 21],
      [A100_175B, 264],
    ] as const) {
      const kv = (model.kvSlots * model.kvBytesPerToken) / 1e9;
      expect(kv / gigabytes).toBeGreaterThan(0.95);
      expect(kv / gigabytes).toBeLessThan(1.1);
      expect(kv * 1e9 + model.weightBytes).toBeLessThan(model.memoryBytes);
    }
  });

  it("read the weights once a step, and are bound by arithmetic from the ridge on", () => {
    const decode = stepMs(A100_13B, 1, 0, 0);
    expect(decode).toBeGreaterThan(19);
    expect(decode).toBeLessThan(22);
    expect(stepMs(A100_13B, 100, 0, 0)).toBe(decode);
    const perRow = (stepMs(A100_13B, 2000, 0, 0) - stepMs(A100_13B, 1000, 0, 0)) / 1000;
    expect(perRow).toBeCloseTo(0.13, 2);
  });

  it("of a browser gives back what was measured", () => {
    const decode = (chats: number) => stepMs(BROWSER, chats, chats, 128 * chats);
    expect([1, 2, 4, 8].map(decode)).toEqual([
      expect.closeTo(8.46, 9),
      expect.closeTo(10.26, 9),
      expect.closeTo(13.8, 9),
      expect.closeTo(24.95, 9),
    ]);
    // Between the points, and beyond them at the rate of prompts.
    expect(decode(3)).toBeCloseTo((10.26 + 13.8) / 2, 9);
    const perRow = stepMs(BROWSER, 101, 1, 0) - stepMs(BROWSER, 100, 1, 0);
    expect(perRow).toBeCloseTo(1000 / 350, 9);
  });
});
