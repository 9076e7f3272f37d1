import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PromptLookup } from "./promptLookup.ts";

/** The definition, searched for: longest suffix n-gram, its earliest other occurrence, what follows it. */
function search(tokens: readonly number[], minN: number, maxN: number, k: number): number[] {
  for (let n = Math.min(maxN, tokens.length - 1); n >= minN; n--) {
    const suffix = tokens.slice(-n);
    for (let start = 0; start + n < tokens.length; start++) {
      if (suffix.every((token, i) => tokens[start + i] === token)) {
        return tokens.slice(start + n, start + n + k);
      }
    }
  }
  return [];
}

function createLookup(tokens: readonly number[], minN: number, maxN: number): PromptLookup {
  const lookup = new PromptLookup({ minN, maxN });
  lookup.append(tokens);
  return lookup;
}

describe("PromptLookup", () => {
  it("proposes what a search over the whole history finds, after every token", () => {
    const history = fc.record({
      // Few different tokens, so that there are many occurrences; many, so that tables grow.
      tokens: fc.oneof(
        fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 120, size: "max" }),
        fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 300, size: "max" }),
        // Ids of a large vocabulary that are multiples of one power of two.
        fc.array(
          fc.integer({ min: 0, max: 9 }).map((i) => i * 2 ** 14),
          { maxLength: 80 },
        ),
      ),
      minN: fc.integer({ min: 1, max: 3 }),
      more: fc.nat(3),
      chunk: fc.integer({ min: 1, max: 9 }),
      k: fc.nat(8),
    });
    let numProposals = 0;
    fc.assert(
      fc.property(history, ({ tokens, minN, more, chunk, k }) => {
        const maxN = minN + more;
        const lookup = new PromptLookup({ minN, maxN });
        for (let end = 0; end < tokens.length; end += chunk) {
          lookup.append(tokens.slice(end, end + chunk));
          const known = tokens.slice(0, end + chunk);
          const proposal = lookup.propose(k);
          expect(proposal).toEqual(search(known, minN, maxN, k));
          expect(lookup.numTokens).toBe(known.length);
          if (proposal.length > 0) numProposals += 1;
        }
      }),
      { numRuns: 300 },
    );
    expect(numProposals).toBeGreaterThan(1_000);
  });

  it("proposes nothing if no suffix of at least minN tokens occurred before", () => {
    expect(createLookup([1, 2, 3, 1, 2], 3, 4).propose(5)).toEqual([]);
    expect(createLookup([], 1, 3).propose(5)).toEqual([]);
    expect(createLookup([1, 2, 3], 1, 3).propose(5)).toEqual([]);
  });

  it("goes by the longest suffix, not by the first token that fits", () => {
    expect(createLookup([2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 1, 3).propose(1)).toEqual([9]);
    expect(createLookup([2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 1, 2).propose(1)).toEqual([8]);
  });

  it("takes the earliest occurrence, as vLLM does", () => {
    expect(createLookup([1, 2, 7, 1, 2, 8, 1, 2], 2, 2).propose(1)).toEqual([7]);
  });

  it("proposes k tokens at most, and none behind the end", () => {
    const lookup = createLookup([1, 2, 3, 4, 1, 2], 2, 2);
    expect(lookup.propose(2)).toEqual([3, 4]);
    expect(lookup.propose(9)).toEqual([3, 4, 1, 2]);
    expect(lookup.propose(0)).toEqual([]);
  });

  it("sees occurrences that overlap the suffix", () => {
    expect(createLookup([5, 5, 5], 2, 2).propose(3)).toEqual([5]);
  });

  it("takes no more work a token in a long history than in a short one", () => {
    // Nothing repeats, so that every n-gram is entered: the most work there is.
    const microsecondsPerToken = (numTokens: number) => {
      const tokens = Array.from({ length: numTokens }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 15);
      let best = Number.POSITIVE_INFINITY;
      for (let run = 0; run < 3; run++) {
        // Of this process alone, so that a busy machine does not count.
        const start = process.cpuUsage();
        createLookup(tokens, 2, 4).propose(4);
        best = Math.min(best, process.cpuUsage(start).user);
      }
      return best / numTokens;
    };
    microsecondsPerToken(20_000); // warm-up
    // A search of the history at each step would take 16 times as long a token; cache misses cost some.
    expect(microsecondsPerToken(160_000)).toBeLessThan(
      8 * Math.max(0.1, microsecondsPerToken(10_000)),
    );
  });
});
