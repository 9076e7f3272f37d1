import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend, Plan } from "../../src/backends/ops.ts";
import { makePlan } from "../fixtures/drivePlan.ts";
import { makeNoNumberModel, NO_NUMBER_TOKEN } from "../fixtures/noNumberModel.ts";
import { Random } from "../fixtures/random.ts";
import { EngineDriver, request, sampled } from "./engineDriver.ts";

const SIZES = { numBlocks: 64, blockSize: 16, maxSequences: 16 };

/**
 * Requests whose logits are not numbers end with an error, in whatever company and with whatever sampling,
 * and leave the others as they are.
 */
export function describeNoNumber(on: string, open: () => Promise<Backend>): void {
  describe(`logits that are no numbers on ${on}`, () => {
    let backend: Backend;
    let plan: Plan;
    beforeAll(async () => {
      backend = await open();
      const { numBlocks, maxSequences } = SIZES;
      const options = { kvBlocks: numBlocks, maxSequences, maxRows: 64, maxContext: 192 };
      plan = await makePlan(await makeNoNumberModel(), options, backend);
    });
    afterAll(() => {
      plan.dispose();
      backend.dispose();
    });

    const random = new Random(77);
    const tokens = (count: number) => Array.from({ length: count }, () => random.integer(3, 299));
    const fine = [
      request("greedy", tokens(20)),
      request("drawn", tokens(33), { n: 2, sampling: sampled([1, 2], { logprobs: 2 }) }),
      request("chosen", tokens(5), { sampling: sampled([3, 4], { topK: 20, topP: 0.9 }) }),
    ];
    const spoiltPrompt = [...tokens(21), NO_NUMBER_TOKEN];
    const beam = { width: 2, lengthPenalty: 1, earlyStopping: false } as const;
    const spoilt = [
      request("spoilt greedy", spoiltPrompt),
      request("spoilt drawn", spoiltPrompt, { n: 2, sampling: sampled([5, 6], { logprobs: 3 }) }),
      request("spoilt chosen", spoiltPrompt, {
        sampling: sampled([7, 8], { topK: 20, topP: 0.9, minP: 0.01 }),
      }),
      request("spoilt penalties", spoiltPrompt, {
        sampling: sampled([9, 1], { presencePenalty: 1, repetitionPenalty: 1.2 }),
      }),
      request("spoilt beams", spoiltPrompt, { n: 2, beam }),
    ];

    test.each([1, 4])(
      "end their requests alone (steps in flight: %i)",
      async (maxStepsInFlight) => {
        const alone = (await new EngineDriver(plan, SIZES).run(fine)).said;
        const driver = new EngineDriver(plan, { ...SIZES, maxStepsInFlight });
        if (maxStepsInFlight > 1) await driver.deepen(tokens(3));
        await driver.run([...spoilt.slice(0, 3), ...fine, ...spoilt.slice(3)]);
        for (const { id } of fine) expect(driver.said.get(id), String(id)).toEqual(alone.get(id));
        for (const { id, n } of spoilt) {
          const answers = driver.said.get(id)!;
          expect(answers, String(id)).toHaveLength(n);
          for (const answer of answers) {
            expect(answer, String(id)).toMatchObject({ tokens: [], finishReason: "error" });
          }
        }
        const { running, waiting, kvBlocksUsed } = driver.engine.stats();
        expect({ running, waiting, kvBlocksUsed }).toEqual({
          running: 0,
          waiting: 0,
          kvBlocksUsed: 0,
        });
      },
    );
  });
}
