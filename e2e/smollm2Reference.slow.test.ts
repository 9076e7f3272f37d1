import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ensureDefaultModel, standInReason } from "../scripts/lib/model.mjs";
import { makePlan, makeStep } from "./fixtures/drivePlan.ts";
import greedy from "./fixtures/smollm2-greedy.json" with { type: "json" };

/** Short ones: the reference takes about a third of a second a token. */
const CHATS = ["plain question", "chinese"];
const BLOCKS = Array.from({ length: 8 }, (_, i) => 7 - i);

const model = await ensureDefaultModel();
const standIn = standInReason(model);
const title = "SmolLM2 on the reference back end gives llama.cpp's greedy tokens";
if (standIn !== undefined) console.info(`${title}: skipped, ${standIn}.`);

test.skipIf(standIn !== undefined)(title, { timeout: 1_200_000 }, async () => {
  const plan = await makePlan(new Uint8Array(readFileSync(model.path)), {
    kvCacheDtype: "f32",
    kvBlocks: 8,
  });
  const chats = greedy.chats.filter(({ name }) => CHATS.includes(name));
  expect(chats).toHaveLength(CHATS.length);
  for (const { name, promptTokens, tokens } of chats) {
    const found: number[] = [];
    let start = 0;
    let input = promptTokens;
    while (found.length < tokens.length) {
      const step = makeStep(start, 16, [
        { slot: 0, tokens: input, start, blocks: BLOCKS, isSampled: true },
      ]);
      const result = await plan.submit(step).result;
      found.push(...result.tokens);
      start += input.length;
      input = [...result.tokens];
    }
    expect(found, name).toEqual(tokens);
  }
});
