import { describe, expect, it } from "vitest";
import { BeamParents } from "./beamParents.ts";
import { createRandom } from "./random.ts";

describe("BeamParents", () => {
  it("displaces at most one beam a step, by the one right above it", () => {
    const draws = new BeamParents(createRandom(1, "beams"), 0.5);
    for (let i = 0; i < 1000; i++) {
      const displaced = draws.draw(6);
      const moved = draws.parents.filter((parent, rank) => parent !== rank);
      expect(moved).toHaveLength(displaced);
      expect(displaced).toBeLessThanOrEqual(1);
      for (const [rank, parent] of draws.parents.entries()) {
        expect(parent === rank || parent === rank - 1).toBe(true);
      }
    }
  });

  it("displaces the second of two beams at its rate", () => {
    const draws = new BeamParents(createRandom(2, "beams"), 0.2);
    let displaced = 0;
    for (let i = 0; i < 10_000; i++) displaced += draws.draw(2);
    expect(Math.abs(displaced / 10_000 - 0.2)).toBeLessThan(0.02);
  });
});
