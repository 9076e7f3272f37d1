import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend, Plan } from "../../src/backends/ops.ts";
import type { EngineRequest } from "../../src/engine/engineRequest.ts";
import { GREEDY } from "../../src/engine/sampling.ts";
import { makePlan } from "../fixtures/drivePlan.ts";
import { Random } from "../fixtures/random.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { describeBeams } from "./engineBeams.ts";
import { EngineDriver, type FeatureBench, request, sampled } from "./engineDriver.ts";
import { describeEverything } from "./engineEverything.ts";
import { describeStepsInFlight } from "./engineInFlight.ts";

const VOCABULARY = 300;
/** That the pool holds. */
const NUM_TOKENS = 2048;
const HOST_TOKENS = 1024;
const MAX_SEQUENCES = 32;

export interface FeatureOptions {
  /** Default 16. */
  readonly blockSize?: 8 | 16 | 32;
}

/**
 * What the engine does with sequences, proven on a real model: sharing, searching, swapping, guessing and
 * all of it at once leave the tokens what they are without it. `open` is called once; the suite disposes
 * of the back end.
 */
export function describeEngineFeatures(
  on: string,
  open: () => Promise<Backend>,
  { blockSize = 16 }: FeatureOptions = {},
): void {
  const numBlocks = NUM_TOKENS / blockSize;
  const numHostBlocks = HOST_TOKENS / blockSize;
  describe(`the engine on ${on}`, () => {
    let backend: Backend;
    let plan: Plan;
    beforeAll(async () => {
      backend = await open();
      const blockBytes = 2 * 2 * 2 * 64 * 2 * blockSize; // layers, K and V, heads, floats of 2 bytes
      const model = makeTinyModel({ type: "Q4_1", layers: 2, seed: 31, contextLength: 256 });
      const options = {
        blockSize,
        kvBlocks: numBlocks,
        swapBytes: numHostBlocks * blockBytes,
        maxSequences: MAX_SEQUENCES,
        maxRows: 64,
        maxContext: 192,
      };
      plan = await makePlan(model, options, backend);
      expect(plan.blockBytes).toBe(blockBytes);
    });
    afterAll(() => backend.dispose());

    const random = new Random(77);
    const bench: FeatureBench = {
      get plan() {
        return plan;
      },
      blockSize,
      numHostBlocks,
      drive: (given = {}) =>
        new EngineDriver(plan, {
          numBlocks,
          blockSize,
          maxSequences: MAX_SEQUENCES,
          ...given,
        }),
      tokens: (count) => Array.from({ length: count }, () => random.integer(3, VOCABULARY - 1)),
    };
    describeSamples(bench);
    describePrefixes(bench);
    describePreemption(bench);
    describeLookup(bench);
    describeBeams(bench);
    describeEverything(bench);
    describeStepsInFlight(bench);
  });
}

function describeSamples({ blockSize, drive, tokens }: FeatureBench): void {
  test.each([
    { full: 2, rest: 5, maxTokens: 14 },
    { full: 2, rest: 0, maxTokens: 10 },
    { full: 0, rest: 5, maxTokens: 14 },
  ])(
    "four samples of $full blocks and $rest tokens cost one prefill and share what they can",
    async ({ full, rest, maxTokens }) => {
      const prompt = tokens(full * blockSize + rest);
      // The low word overflows from the second sample to the third.
      const sampling = sampled([2 ** 32 - 2, 3], { logprobs: 1 });
      const together = await drive().run([request("n", prompt, { n: 4, maxTokens, sampling })]);

      const { rows, kvBlocksPeak } = together.engine.stats();
      expect(rows).toBe(prompt.length + 4 * (maxTokens - 1));
      expect(together.numRows).toBe(rows);
      const tail = Math.ceil((rest + maxTokens) / blockSize);
      expect(kvBlocksPeak).toBeLessThanOrEqual(full + 4 * tail);
      expect(together.steps.flatMap(({ copies }) => copies)).toHaveLength(rest === 0 ? 0 : 3);

      const seeds = [
        [2 ** 32 - 2, 3],
        [2 ** 32 - 1, 3],
        [0, 4],
        [1, 4],
      ] as const;
      const samples = together.said.get("n")!;
      for (const [i, seed] of seeds.entries()) {
        const one = request("one", prompt, { maxTokens, sampling: { ...sampling, seed } });
        const alone = await drive().run([one]);
        expect([samples[i]], `sample ${i}`).toEqual(alone.said.get("one"));
      }
      expect(new Set(samples.map(({ tokens: own }) => String(own))).size).toBe(4);
    },
  );
}

function describePrefixes({ blockSize, drive, tokens }: FeatureBench): void {
  const sampling = sampled([5, 5], { logprobs: 3 });
  const ask = (id: string, prompt: readonly number[]): EngineRequest =>
    request(id, prompt, { maxTokens: 10, sampling });

  test("of a prompt that was there but for its last tokens only these are computed", async () => {
    const first = tokens(3 * blockSize - 3);
    const second = [...first.slice(0, -4), ...tokens(4)];
    const cases = [
      ["second", second, first.length - 4],
      // At least the last token is computed.
      ["first again", first, first.length - 1],
      ["shorter", first.slice(0, -6), first.length - 7],
      ["longer", [...second, 5, 6, 7], second.length],
    ] as const;
    const cold = new Map<string, EngineDriver>();
    for (const [id, prompt] of cases) cold.set(id, await drive().run([ask(id, prompt)]));

    const driver = await drive().run([ask("first", first)]);
    for (const [id, prompt, cached] of cases) {
      const before = driver.numRows;
      await driver.run([ask(id, prompt)]);
      expect(driver.numRows - before, id).toBe(prompt.length - cached + 9);
      expect(driver.answers.get(id)![0]!.cachedTokens, id).toBe(cached);
      expect(cold.get(id)!.answers.get(id)![0]!.cachedTokens).toBe(0);
      expect(driver.said.get(id), id).toEqual(cold.get(id)!.said.get(id));
    }
  });

  test("a prompt that parts from a running one within a full block begins with a copy of it", async () => {
    const first = tokens(2 * blockSize + 1);
    const cached = blockSize + 5;
    const second = [...first.slice(0, cached), ...tokens(7)];
    const driver = drive();
    driver.add(ask("first", first));
    while (driver.answers.get("first")![0]!.tokens.length < 2) await driver.step();
    await driver.run([ask("second", second)]);
    expect(driver.answers.get("second")![0]!.cachedTokens).toBe(cached);
    expect(driver.numRows).toBe(first.length + 9 + (second.length - cached) + 9);
    expect(driver.steps.flatMap(({ copies }) => copies)).toHaveLength(1);
    for (const own of [ask("first", first), ask("second", second)]) {
      expect(driver.said.get(own.id)).toEqual((await drive().run([own])).said.get(own.id));
    }
  });
}

function describePreemption({ blockSize, drive, tokens, ...bench }: FeatureBench): void {
  test("sequences that are swapped out or computed again say the same", async () => {
    const requests = [21, 50, 33, 16, 40, 5, 48].map((length, i) => {
      const sampling = i % 2 === 0 ? GREEDY : sampled([i, 0], { repetitionPenalty: 1.2 });
      return request(i, tokens(length), { maxTokens: 28, sampling });
    });
    requests.push(request("n", tokens(19), { n: 3, maxTokens: 28, sampling: sampled([9, 9]) }));
    const roomy = await drive().run(requests);
    expect(roomy.engine.stats().preemptions).toBe(0);

    const numBlocks = Math.ceil(160 / blockSize); // all together need 500 tokens
    const recomputed = await drive({ numBlocks }).run(requests);
    const { preemptions, swaps, tokensLost } = recomputed.engine.stats();
    expect(preemptions).toBeGreaterThan(2);
    expect(swaps).toBe(0);
    expect(tokensLost).toBeGreaterThan(0);
    expect(recomputed.said).toEqual(roomy.said);

    const swapped = await drive({ numBlocks, numHostBlocks: bench.numHostBlocks }).run(requests);
    const events = swapped.engine.events();
    const swapOuts = events.filter((event) => event.kind === "preempt" && event.how === "swap");
    const swapIns = events.filter(({ kind }) => kind === "swap-in");
    expect(swapOuts.length).toBeGreaterThan(2);
    expect(swapIns).toHaveLength(swapOuts.length);
    expect(swapped.engine.stats().swaps).toBe(swapOuts.length);
    expect(swapped.steps.flatMap((step) => step.swapOuts).length).toBeGreaterThan(2);
    expect(swapped.said).toEqual(roomy.said);
    // Fewer rows: what was swapped out is not computed again.
    expect(swapped.numRows).toBeLessThan(recomputed.numRows);
  });

  test("32 chats over a pool for 6 all finish", async () => {
    const chats = Array.from({ length: 32 }, (_, i) => {
      const prompt = tokens(blockSize + 1 + (i % 7));
      const sampling = i % 3 === 0 ? GREEDY : sampled([i, 1]);
      return request(i, prompt, { maxTokens: blockSize + 1, sampling });
    });
    const roomy = await drive().run(chats);
    const numBlocks = 6 * 3;
    const { numHostBlocks } = bench;
    const crowded = await drive({ numBlocks, numHostBlocks }).run(chats);
    const { running, waiting, kvBlocksUsed, kvBlocksPeak } = crowded.engine.stats();
    expect({ running, waiting, kvBlocksUsed }).toEqual({ running: 0, waiting: 0, kvBlocksUsed: 0 });
    expect(kvBlocksPeak).toBeGreaterThan(numBlocks - 3);
    expect(crowded.said).toEqual(roomy.said);
  });
}

function describeLookup({ drive, tokens }: FeatureBench): void {
  test("tokens that were guessed from the text are those of single steps, in fewer of them", async () => {
    const phrase = tokens(9);
    const copies = [...phrase, ...phrase, ...phrase, ...phrase.slice(0, 4)];
    // A few tokens that are nearly as likely: guesses are right often, and wrong often.
    const logitBias = [7, 8, 9].map((token) => [token, 100] as const);
    const random = sampled([3, 3], { temperature: 4, logitBias, logprobs: 2 });
    for (const [sampling, name] of [
      [GREEDY, "greedy"],
      [random, "sampled"],
    ] as const) {
      const own = { maxTokens: 60, sampling };
      const plain = await drive().run([request(name, copies, own)]);
      const guessed = await drive().run([
        request(name, copies, { ...own, numSpeculativeTokens: 4 }),
      ]);
      expect(guessed.said, name).toEqual(plain.said);
      const { metrics, steps } = guessed.engine.stats();
      const { spec_decode_num_accepted_tokens: accepted, spec_decode_num_draft_tokens: drafts } =
        metrics;
      expect(accepted, name).toBeGreaterThan(9);
      expect(steps, name).toBe(plain.engine.stats().steps - accepted);
      if (name === "sampled") expect(drafts).toBeGreaterThan(accepted);
    }
  });
}
