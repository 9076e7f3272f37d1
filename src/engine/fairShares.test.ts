import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fairShares } from "./fairShares.ts";

describe("fairShares", () => {
  it("gives everybody what is wanted while there is enough", () => {
    expect(fairShares([3, 0, 5], 8)).toEqual([3, 0, 5]);
    expect(fairShares([3, 0, 5], 100)).toEqual([3, 0, 5]);
    expect(fairShares([], 5)).toEqual([]);
  });

  it("splits evenly, and passes on what somebody does not need", () => {
    expect(fairShares([100, 100], 20)).toEqual([10, 10]);
    expect(fairShares([100, 4, 100], 24)).toEqual([10, 4, 10]);
    expect(fairShares([1, 2, 3, 100], 20)).toEqual([1, 2, 3, 14]);
  });

  it("leaves nothing over where somebody wants it", () => {
    expect(fairShares([100, 100, 100], 2).reduce((sum, share) => sum + share)).toBe(2);
    expect(fairShares([1, 1, 1], 2).reduce((sum, share) => sum + share)).toBe(2);
  });

  it("is max-min fair: nobody could have more without taking it from one who has less", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(40), { maxLength: 12 }), fc.nat(200), (wants, total) => {
        const shares = fairShares(wants, total);
        expect(shares).toHaveLength(wants.length);
        for (const [i, share] of shares.entries()) {
          expect(share).toBeGreaterThanOrEqual(0);
          expect(share).toBeLessThanOrEqual(wants[i]!);
        }
        const wanted = wants.reduce((sum, want) => sum + want, 0);
        const given = shares.reduce((sum, share) => sum + share, 0);
        expect(given).toBe(Math.min(total, wanted));
        const most = Math.max(0, ...shares);
        for (const [i, share] of shares.entries()) {
          if (share < wants[i]!) expect(share).toBeGreaterThanOrEqual(most - 1);
        }
      }),
    );
  });
});
