import { beforeAll, describe, expect, test } from "vitest";
import type { EngineRequest } from "../../src/engine/engineRequest.ts";
import { GREEDY } from "../../src/engine/sampling.ts";
import { type EngineDriver, type FeatureBench, request, sampled } from "./engineDriver.ts";

/** Of a pool in which they have no room all together: they need twice as many. */
const CROWDED_TOKENS = 400;

/** Every kind of request in the same steps: each gets what it gets alone. */
export function describeEverything({
  blockSize,
  numHostBlocks: most,
  drive,
  tokens,
}: FeatureBench): void {
  describe("greedy, sampled, n = 4, best of 3, beam and guessing requests, with and without a common prefix", () => {
    const requests = everyKind(tokens, blockSize);
    const numSequences = requests.reduce(
      (sum, { n, bestOf, beam }) => sum + (beam?.width ?? bestOf ?? n),
      0,
    );
    const alone = new Map<EngineRequest["id"], unknown>();
    beforeAll(async () => {
      for (const one of requests) {
        const { said } = await drive().run([one]);
        alone.set(one.id, said.get(one.id));
      }
    });

    test("in the same steps", async () => {
      const together = await runAll(drive(), requests);
      expect(together.engine.stats().preemptions).toBe(0);
      expect(mostSlots(together)).toBe(numSequences);
      const { prefix_cache_hits, spec_decode_num_accepted_tokens } =
        together.engine.stats().metrics;
      expect(prefix_cache_hits).toBeGreaterThan(4 * 2 * blockSize);
      expect(spec_decode_num_accepted_tokens).toBeGreaterThan(10);
      expect(together.said).toEqual(alone);
    });

    test.each([0, most])("preempted, with %d host blocks", async (numHostBlocks) => {
      const numBlocks = Math.ceil(CROWDED_TOKENS / blockSize);
      const crowded = await runAll(drive({ numBlocks, numHostBlocks }), requests);
      const { preemptions, swaps } = crowded.engine.stats();
      expect(preemptions).toBeGreaterThan(1);
      if (numHostBlocks > 0) expect(swaps).toBeGreaterThan(0);
      else expect(swaps).toBe(0);
      expect(crowded.said).toEqual(alone);
    });

    test.each([
      ["all at once", {}],
      ["preempted", { numBlocks: Math.ceil(CROWDED_TOKENS / blockSize), numHostBlocks: most }],
    ])("with four steps in flight, %s", async (_, own) => {
      const driver = drive({ ...own, maxStepsInFlight: 4 });
      await driver.deepen(tokens(3));
      await runAll(driver, requests);
      expect(driver.mostInFlight).toBe(4);
      expect(driver.engine.stats().preemptions > 1).toBe("numBlocks" in own);
      expect(driver.said).toEqual(alone);
    });
  });
}

function everyKind(tokens: FeatureBench["tokens"], blockSize: number): readonly EngineRequest[] {
  const prefix = tokens(2 * blockSize + 6);
  const phrase = tokens(8);
  const copies = [...phrase, ...phrase, ...phrase];
  const logitBias = [7, 8, 9].map((token) => [token, 100] as const);
  const beam = { width: 4, lengthPenalty: 1, earlyStopping: false };
  const penalties = { repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.2 };
  const selected = { temperature: 0.8, topK: 20, topP: 0.95, minP: 0.01 };
  return [
    request("greedy, prefix", [...prefix, ...tokens(3)], {
      maxTokens: 32,
      sampling: { ...GREEDY, logprobs: 4 },
    }),
    request("greedy", tokens(21)),
    request("sampled", tokens(9), { sampling: sampled([1, 0], { logprobs: 2 }) }),
    request("sampled, prefix", [...prefix, ...tokens(5)], { sampling: sampled([2, 0], penalties) }),
    request("selected, prefix", [...prefix, ...tokens(4)], { sampling: sampled([8, 0], selected) }),
    request("n", tokens(18), { n: 4, sampling: sampled([3, 0], penalties) }),
    request("n, prefix", [...prefix, ...tokens(7)], { n: 4, sampling: sampled([4, 0]) }),
    request("best, prefix", [...prefix, ...tokens(2)], {
      n: 2,
      bestOf: 3,
      sampling: sampled([5, 0]),
    }),
    request("beam", tokens(12), { n: 2, beam }),
    request("beam, prefix", [...prefix, ...tokens(6)], { n: 4, beam }),
    request("guessed", copies, { maxTokens: 32, numSpeculativeTokens: 4 }),
    request("guessed, prefix", [...prefix, ...copies], {
      maxTokens: 32,
      numSpeculativeTokens: 3,
      sampling: sampled([6, 0], { temperature: 4, logitBias }),
    }),
  ];
}

/** Runs all of them at once, when the first has put the common prefix in the cache. */
async function runAll(
  driver: EngineDriver,
  [first, ...others]: readonly EngineRequest[],
): Promise<EngineDriver> {
  driver.add(first!);
  while (driver.answers.get(first!.id)![0]!.tokens.length === 0) await driver.step();
  return driver.run(others);
}

/** Most sequences with samples in one step. */
function mostSlots({ steps }: EngineDriver): number {
  return Math.max(...steps.map(({ samples }) => new Set(samples.map(({ slot }) => slot)).size));
}
