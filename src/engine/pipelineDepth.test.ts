import { describe, expect, it } from "vitest";
import { PipelineDepth } from "./pipelineDepth.ts";

/**
 * A device that works `stepMs` on each step and needs `latencyMs` more to bring its result, with as many
 * steps in flight as the depth says. Returns the depths, step by step.
 */
function run(
  depth: PipelineDepth,
  { stepMs, latencyMs }: { readonly stepMs: number; readonly latencyMs: number },
  numSteps = 640,
): number[] {
  const depths: number[] = [];
  const dueMs: number[] = []; // of steps in flight
  let nowMs = 0;
  let idleFromMs = 0;
  let lastMs = 0;
  for (let i = 0; i < numSteps; i++) {
    let submittedMs = lastMs;
    while (dueMs.length < depth.depth) {
      submittedMs = nowMs;
      idleFromMs = Math.max(nowMs, idleFromMs) + stepMs;
      dueMs.push(idleFromMs + latencyMs);
    }
    nowMs = Math.max(nowMs, dueMs.shift()!);
    depths.push(depth.depth);
    depth.record(8, nowMs - Math.max(lastMs, Math.min(submittedMs, nowMs)));
    lastMs = nowMs;
  }
  return depths;
}

function shareAtLeast(depths: readonly number[], depth: number): number {
  return depths.filter((one) => one >= depth).length / depths.length;
}

describe("PipelineDepth", () => {
  it("stays at one where only one step can be in flight", () => {
    const depth = new PipelineDepth(1);
    expect(new Set(run(depth, { stepMs: 5, latencyMs: 50 }))).toEqual(new Set([1]));
  });

  it("starts with one", () => {
    expect(new PipelineDepth(4).depth).toBe(1);
  });

  it.each([
    [5, 0, 1],
    [5, 4, 2],
    [5, 9, 3],
    [5, 14, 4],
    [5, 100, 4],
  ])(
    "finds the depth that hides the latency: steps of %d ms, results %d ms later: %d",
    (stepMs, latencyMs, needed) => {
      const depth = new PipelineDepth(4);
      const depths = run(depth, { stepMs, latencyMs }).slice(-320);
      // Neighbours are tried half of the time; the depth in between is the one that is needed.
      expect(shareAtLeast(depths, needed)).toBeGreaterThanOrEqual(0.5);
      expect(shareAtLeast(depths, needed + 1)).toBeLessThanOrEqual(0.5);
      expect(shareAtLeast(depths, needed + 2)).toBe(0);
      expect(shareAtLeast(depths, needed - 1)).toBe(1);
    },
  );

  it("goes back when results come faster", () => {
    const depth = new PipelineDepth(4);
    run(depth, { stepMs: 5, latencyMs: 14 });
    expect(shareAtLeast(run(depth, { stepMs: 5, latencyMs: 0 }).slice(-320), 3)).toBe(0);
  });

  it("draws no conclusion from steps of other sizes", () => {
    const depth = new PipelineDepth(2);
    // Base trials have small steps, tried ones large: that they take longer says nothing.
    for (let i = 0; i < 320; i++) {
      const isBase = i % 32 < 16;
      depth.record(isBase ? 100 : 8, isBase ? 100 : 8);
    }
    for (let i = 0; i < 16; i++) {
      expect(depth.depth).toBe(1);
      depth.record(8, 5);
    }
  });
});
