import { describe, expect, it } from "vitest";
import { createRandom, shuffle } from "./random.ts";

const COUNT = 20_000;

describe("createRandom", () => {
  it("gives the same stream for the same seed and name, and another for any other", () => {
    const draw = (seed: number, name: string) => {
      const random = createRandom(seed, name);
      return Array.from({ length: 8 }, () => random.uniform());
    };
    expect(draw(1, "a")).toEqual(draw(1, "a"));
    expect(draw(1, "a")).not.toEqual(draw(2, "a"));
    expect(draw(1, "a")).not.toEqual(draw(1, "b"));
  });

  it("is uniform in [0, 1)", () => {
    const random = createRandom(3, "uniform");
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < COUNT; i++) {
      const value = random.uniform();
      expect(value >= 0 && value < 1).toBe(true);
      counts[Math.floor(value * 10)]! += 1;
    }
    // Five standard deviations of a binomial count.
    for (const count of counts)
      expect(Math.abs(count - COUNT / 10)).toBeLessThan(5 * Math.sqrt(COUNT * 0.09));
  });

  it("draws normals of mean 0 and variance 1, a third of them beyond one", () => {
    const random = createRandom(4, "normal");
    const values = Array.from({ length: COUNT }, () => random.normal());
    const mean = values.reduce((sum, x) => sum + x, 0) / COUNT;
    const variance = values.reduce((sum, x) => sum + x * x, 0) / COUNT;
    const beyond = values.filter((x) => Math.abs(x) > 1).length / COUNT;
    expect(Math.abs(mean)).toBeLessThan(0.04);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
    expect(Math.abs(beyond - 0.3173)).toBeLessThan(0.02);
  });
});

describe("shuffle", () => {
  it("keeps all items", () => {
    const items = Array.from({ length: 50 }, (_, i) => i);
    const shuffled = shuffle([...items], createRandom(1, "shuffle"));
    expect(shuffled).not.toEqual(items);
    expect(shuffled.sort((a, b) => a - b)).toEqual(items);
  });
});
