import { expect, test } from "vitest";
import type { BeamSearchParams, EngineRequest } from "../../src/engine/engineRequest.ts";
import { type FeatureBench, request } from "./engineDriver.ts";
import { nextTokensOf, plainBeamSearch } from "./plainBeamSearch.ts";

const MAX_TOKENS = 11;

const SETTINGS: readonly BeamSearchParams[] = [
  { width: 4, lengthPenalty: 1, earlyStopping: false },
  { width: 4, lengthPenalty: 1, earlyStopping: true },
  { width: 4, lengthPenalty: 1, earlyStopping: "never" },
  { width: 4, lengthPenalty: 0, earlyStopping: false },
  { width: 4, lengthPenalty: -1, earlyStopping: "never" },
  { width: 4, lengthPenalty: 0.5, earlyStopping: "never" },
  { width: 4, lengthPenalty: 2, earlyStopping: false },
  { width: 4, lengthPenalty: 2, earlyStopping: "never" },
];

/** Beam search over shared and copied blocks finds what one finds that computes every hypothesis anew. */
export function describeBeams(bench: FeatureBench): void {
  const { blockSize, drive, tokens } = bench;
  // In one case the beams part within a block, in another at its start.
  test.each([2 * blockSize + 3, blockSize, 7])(
    "beams after %d tokens equal those of a plain search",
    async (length) => {
      const prompt = tokens(length);
      const next = nextTokensOf(bench.plan, blockSize);
      const search = (params: BeamSearchParams, stopTokens: readonly number[]) =>
        plainBeamSearch(prompt, next, {
          ...params,
          maxTokens: MAX_TOKENS,
          stopTokens: new Set(stopTokens),
        });
      // Tokens of what is found without them end some hypotheses early, others late; no more than beams.
      const free = await search(SETTINGS[0]!, []);
      const stopTokenIds = [...new Set([0, 1, 2, 4].map((at, i) => free[i]!.tokens[at]!))];
      const beam = (params: BeamSearchParams, stops: readonly number[]): EngineRequest =>
        request(JSON.stringify([params, stops]), prompt, {
          n: params.width,
          maxTokens: MAX_TOKENS,
          stopTokenIds: stops,
          beam: params,
        });

      const all = SETTINGS.map((params) => beam(params, stopTokenIds));
      const together = await drive().run(all);
      const alone = await drive().run([beam(SETTINGS[0]!, [])]);
      expect(hypotheses(alone, beam(SETTINGS[0]!, []))).toEqual(free);
      const reasons = new Set<string>();
      for (const [i, params] of SETTINGS.entries()) {
        const expected = await search(params, stopTokenIds);
        expect(hypotheses(together, all[i]!), all[i]!.id as string).toEqual(expected);
        for (const { finishReason } of expected) reasons.add(finishReason);
      }
      expect([...reasons].sort()).toEqual(["length", "stop"]);
    },
  );
}

function hypotheses(driver: ReturnType<FeatureBench["drive"]>, { id }: EngineRequest) {
  return driver.said.get(id)!.map(({ logprobs: _, ...hypothesis }) => hypothesis);
}
