import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ensureDefaultModel, standInReason } from "../../scripts/lib/model.mjs";
import type { Backend, KvCacheDtype, Plan } from "../../src/backends/ops.ts";
import { Engine } from "../../src/engine/engine.ts";
import { GREEDY } from "../../src/engine/sampling.ts";
import { makePlan } from "../fixtures/drivePlan.ts";
import greedy from "../fixtures/smollm2-greedy.json" with { type: "json" };

/** f16 K and V may turn a decision that is closer than this: the oracle's gap between its two best logits. */
const MAX_F16_GAP = 0.02;

/** Ends SmolLM2's answers: <|im_end|>. */
const END_TOKEN = 2;
const MAX_TOKENS = 32;
/** Bits that depend on the batch would differ early, and a software GPU takes seconds a step. */
const INVARIANT_TOKENS = 10;

const model = await ensureDefaultModel();
/** The oracle answered with the default model's own file. */
const standIn = standInReason(model);
const TIMEOUT = { timeout: 1_800_000 };
const NUM_BLOCKS = 128;
const MAX_CONTEXT = 512;
const MAX_SEQUENCES = 10;

type Chat = (typeof greedy.chats)[number];

/** The real model: answers equal the oracle's, alone, together and preempted. */
export function describeSmolLm2(on: string, backend: Backend): void {
  const title = `SmolLM2 on ${on}`;
  if (standIn !== undefined) console.info(`${title} is skipped: ${standIn}.`);
  describe.skipIf(standIn !== undefined)(title, () => {
    test("f32 KV: ten greedy answers equal llama.cpp's", TIMEOUT, async () => {
      const answers = await answer(backend, greedy.chats, "f32");
      for (const chat of greedy.chats)
        expect(answers.get(chat.name), chat.name).toEqual(wanted(chat));
    });

    test(
      "f16 KV: where an answer first differs, llama.cpp's choice was close",
      TIMEOUT,
      async () => {
        const answers = await answer(backend, greedy.chats, "f16");
        for (const chat of greedy.chats) {
          const found = answers.get(chat.name)!;
          const at = wanted(chat).findIndex((token, i) => token !== found[i]);
          if (at >= 0) expect(chat.gaps[at], `${chat.name}, token ${at}`).toBeLessThan(MAX_F16_GAP);
          else expect(found, chat.name).toEqual(wanted(chat));
        }
      },
    );

    test("f16 KV: alone, together and preempted give the same tokens", TIMEOUT, async () => {
      const { chats } = greedy;
      const plan = await loadModel(backend, "f16");
      const maxTokens = INVARIANT_TOKENS;
      const alone = new Map<string, readonly number[]>();
      for (const chat of chats) {
        const { answers } = await run(plan, [chat], { maxTokens });
        alone.set(chat.name, answers.get(chat.name)!);
      }
      expect((await run(plan, chats, { maxTokens })).answers).toEqual(alone);
      const preempted = await run(plan, chats, { maxTokens, preemptEvery: 6 });
      expect(preempted.preemptions).toBeGreaterThan(chats.length);
      expect(preempted.answers).toEqual(alone);
      plan.dispose();
    });
  });
}

/** The oracle's answer, with the end token where it came to one. */
function wanted({ tokens, finishReason }: Chat): readonly number[] {
  return finishReason === "stop" ? [...tokens, END_TOKEN] : tokens;
}

async function answer(
  backend: Backend,
  chats: readonly Chat[],
  kvCacheDtype: KvCacheDtype,
): Promise<ReadonlyMap<string, readonly number[]>> {
  const plan = await loadModel(backend, kvCacheDtype);
  const { answers } = await run(plan, chats, { maxTokens: MAX_TOKENS });
  plan.dispose();
  return answers;
}

function loadModel(backend: Backend, kvCacheDtype: KvCacheDtype): Promise<Plan> {
  const options = {
    kvCacheDtype,
    kvBlocks: NUM_BLOCKS,
    maxSequences: MAX_SEQUENCES,
    maxContext: MAX_CONTEXT,
    maxRows: 64,
  };
  return makePlan(new Uint8Array(readFileSync(model.path)), options, backend);
}

/**
 * Greedy answers by the chats' names, with the end token where there is one. Every `preemptEvery` steps all
 * lose their places.
 */
async function run(
  plan: Plan,
  chats: readonly Chat[],
  { maxTokens, preemptEvery }: { readonly maxTokens: number; readonly preemptEvery?: number },
) {
  const engine = new Engine({
    executor: plan,
    numBlocks: NUM_BLOCKS,
    blockSize: 16,
    maxSequences: MAX_SEQUENCES,
    maxRows: plan.maxRows,
    maxContext: MAX_CONTEXT,
    endTokens: new Set([END_TOKEN]),
    now: () => performance.now(),
    // Software adapters take longer than a step should: few and large steps, all the same.
    stepBudgetMs: 2000,
  });
  const answers = new Map(chats.map(({ name }) => [name, [] as number[]]));
  for (const { name, promptTokens } of chats) {
    engine.add({
      id: name,
      promptTokens,
      n: 1,
      maxTokens,
      stopTokenIds: [],
      sampling: GREEDY,
    });
  }
  while (engine.hasWork) {
    for (const { requestId, tokens, stopToken } of await engine.step()) {
      answers
        .get(String(requestId))!
        .push(...tokens, ...(stopToken === undefined ? [] : [stopToken]));
    }
    if (preemptEvery !== undefined && engine.stats().steps % preemptEvery === 0)
      engine.preemptAll();
  }
  engine.checkIntegrity();
  return { answers, preemptions: engine.stats().preemptions };
}
