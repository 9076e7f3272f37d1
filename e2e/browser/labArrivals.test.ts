import { expect, it } from "vitest";
import { inLabPage } from "../../scripts/lab/labPage.mjs";

// The lab's page with the real engine: ten requests at once, as each policy serves them.

const OUTPUT_TOKENS = 6;
const REQUESTS = Array.from({ length: 10 }, (_, i) => ({
  arrivalMs: 2 * i,
  textStart: 100 * i,
  promptTokens: 5 + i,
  // One is long, so that a batch that waits for it can be told from one that does not.
  outputTokens: i === 0 ? 4 * OUTPUT_TOKENS : OUTPUT_TOKENS,
}));

it("serves requests one at a time, in batches that end as a whole, and as they come", async () => {
  const { serial, statics, quire } = await inLabPage(async (lab, textTokens) => {
    expect(textTokens).toBeGreaterThan(4000);
    const shifted = (by: number) =>
      REQUESTS.map((request) => ({ ...request, textStart: request.textStart + by }));
    return {
      serial: await lab.serve("serial", REQUESTS),
      statics: await lab.serve("static", shifted(1000)),
      quire: await lab.serve("quire", shifted(2000)),
    };
  });
  for (const served of [serial, statics, quire]) {
    expect(served.map(({ tokenMs }) => tokenMs.length)).toEqual(
      REQUESTS.map(({ outputTokens }) => outputTokens),
    );
    for (const [i, { sentMs, tokenMs, cachedTokens }] of served.entries()) {
      expect(sentMs).toBeGreaterThanOrEqual(2 * i);
      expect([sentMs, ...tokenMs]).toEqual([sentMs, ...tokenMs].sort((a, b) => a - b));
      expect(cachedTokens).toBeLessThan(5);
    }
  }
  const endOf = ({ tokenMs }: (typeof serial)[number]) => tokenMs.at(-1) ?? Number.NaN;
  for (const [i, served] of serial.entries()) {
    if (i > 0) expect(served.sentMs).toBeGreaterThanOrEqual(endOf(serial[i - 1]!));
  }
  // The first finds nobody else waiting; the eight behind it make a batch; the last comes after them.
  const [first, ...others] = statics;
  const batch = others.slice(0, 8);
  expect(Math.min(...batch.map(({ sentMs }) => sentMs))).toBeGreaterThanOrEqual(endOf(first!));
  expect(Math.max(...batch.map(({ sentMs }) => sentMs))).toBeLessThan(
    Math.min(...batch.map(({ tokenMs }) => tokenMs[0]!)),
  );
  expect(others[8]!.sentMs).toBeGreaterThanOrEqual(Math.max(...batch.map(endOf)));
  // Those that came later end before the long one, which nobody waits for.
  const [long, ...short] = quire;
  expect(Math.max(...quire.map(({ sentMs }) => sentMs))).toBeLessThan(endOf(long!));
  expect(Math.min(...short.map(endOf))).toBeLessThan(endOf(long!));
});
