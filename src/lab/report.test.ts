import { describe, expect, it } from "vitest";
import { isMet, near, read, remembered, row } from "./experiment.ts";
import { Histogram } from "./histogram.ts";
import { renderPlot, ticks } from "./plot.ts";
import { formatNumber, formatResult } from "./table.ts";

describe("Histogram", () => {
  it("finds percentiles to 1 %", () => {
    const histogram = new Histogram();
    for (let i = 1; i <= 10_000; i++) histogram.add(i / 10);
    for (const part of [0.1, 0.5, 0.9, 0.99]) {
      expect(Math.abs(histogram.percentile(part) / (1000 * part) - 1)).toBeLessThan(0.011);
    }
    expect(histogram.max).toBe(1000);
    expect(new Histogram().percentile(0.5)).toBe(0);
  });
});

describe("formatResult", () => {
  it("sets ours beside the paper's and says where that is from and whether the target is met", () => {
    const rows = [
      row("vllm", "kv-use", "sharegpt", 96.84, "%", read(96.3), near(96.3, 3)),
      row("orca-max", "mean-batch", "sharegpt", 7, "requests", remembered(7)),
      row("quire", "waste", "cost", 23.6, "%", undefined, { max: 14 }),
    ];
    expect(rows.map(isMet)).toEqual([true, true, false]);
    const text = formatResult("E1", "Title", { rows, notes: ["A note."], plots: [] });
    expect(text).toMatch(/vllm +kv-use +sharegpt +96.30 +96.84 +% +>= 93.30, <= 99.30 met/);
    expect(text).toMatch(/orca-max +mean-batch +sharegpt +7\* +7 +requests\n/);
    expect(text).toMatch(/quire +waste +cost +23.60 +% +<= 14.00 MISSED/);
    expect(text).toContain("  A note.");
  });

  it("rounds to what is of interest", () => {
    expect([0.04216, 1.5, 23.456, 132.44, 165971].map(formatNumber)).toEqual([
      "0.0422",
      "1.5",
      "23.46",
      "132.4",
      "165971",
    ]);
  });
});

describe("renderPlot", () => {
  const labels = { name: "p", title: "a < b & c", xLabel: "x", yLabel: "y" };

  it("draws a line a series through its finite points, and escapes text", () => {
    const svg = renderPlot({
      ...labels,
      kind: {
        type: "lines",
        series: [
          {
            name: "one",
            points: [
              [0, 0],
              [1, 2],
              [2, Number.POSITIVE_INFINITY],
            ],
          },
        ],
      },
    });
    expect(svg.match(/<circle/g)).toHaveLength(2);
    expect(svg).toContain("a &lt; b &amp; c");
    expect(svg).not.toMatch(/NaN|Infinity/);
  });

  it("stacks parts on top of each other", () => {
    const svg = renderPlot({
      ...labels,
      kind: {
        type: "stacks",
        bars: ["a", "b"],
        parts: [
          { name: "low", values: [1, 2] },
          { name: "high", values: [3, 2] },
        ],
      },
    });
    const boxes = [...svg.matchAll(/y="([\d.]+)" width="[\d.]+" height="([\d.]+)" fill="#/g)].map(
      ([, y, height]) => [Number(y), Number(height)] as const,
    );
    const [lowA, , highA] = boxes.slice(0, 4);
    expect(lowA![1] * 3).toBeCloseTo(highA![1], 0);
    expect(highA![0] + highA![1]).toBeCloseTo(lowA![0], 0);
  });

  it("chooses round ticks that reach the top", () => {
    expect(ticks(0, 1)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticks(0, 100.0000001)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticks(0, 37)).toEqual([0, 10, 20, 30, 40]);
  });
});
