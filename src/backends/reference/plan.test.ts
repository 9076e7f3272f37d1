import { describe, expect, test } from "vitest";
import {
  makePlan,
  makeStep,
  type PoolMoves,
  type SequenceRows,
} from "../../../e2e/fixtures/drivePlan.ts";
import { makeTinyModel } from "../../../e2e/fixtures/tinyModel.ts";
import { GREEDY, type SamplingParams } from "../../engine/sampling.ts";
import { SAMPLED_TOKEN, type Step } from "../../engine/step.ts";
import { createReferenceBackend } from "./backend.ts";

const GGUF = makeTinyModel({ type: "Q8_0", seed: 21 });
const TOKENS = Array.from({ length: 45 }, (_, i) => (i * 37 + 11) % 300);

/** Logits after the last of `parts`, each part one step of one sequence. */
async function logitsAfter(
  parts: readonly (readonly number[])[],
  blocks: readonly number[],
  options: { readonly blockSize?: 8 | 16 | 32; readonly kvCacheDtype?: "f16" | "f32" } = {},
): Promise<Float32Array> {
  const { blockSize = 16 } = options;
  const plan = await makePlan(GGUF, { kvBlocks: 16, ...options });
  let start = 0;
  for (const [i, tokens] of parts.entries()) {
    const isLast = i === parts.length - 1;
    const step = makeStep(i, blockSize, [{ slot: 2, tokens, start, blocks, isSampled: isLast }]);
    await plan.submit(step).result;
    start += tokens.length;
  }
  return plan.readLogits();
}

describe("logits do not depend on", () => {
  const whole = logitsAfter([TOKENS], [0, 1, 2]);

  test("how the prompt is cut into steps", async () => {
    const chunks = [
      TOKENS.slice(0, 7),
      TOKENS.slice(7, 16),
      TOKENS.slice(16, 44),
      TOKENS.slice(44),
    ];
    expect(await logitsAfter(chunks, [0, 1, 2])).toEqual(await whole);
    expect(
      await logitsAfter(
        TOKENS.map((token) => [token]),
        [0, 1, 2],
      ),
    ).toEqual(await whole);
  });

  test("where the blocks lie", async () => {
    expect(await logitsAfter([TOKENS.slice(0, 20), TOKENS.slice(20)], [13, 4, 9])).toEqual(
      await whole,
    );
  });

  test("the block size", async () => {
    const small = await logitsAfter([TOKENS], [9, 3, 11, 1, 14, 6], { blockSize: 8 });
    expect(small).toEqual(await whole);
    expect(await logitsAfter([TOKENS], [5, 2], { blockSize: 32 })).toEqual(await whole);
  });

  test("what else is in the batch", async () => {
    const plan = await makePlan(GGUF, { kvBlocks: 16 });
    const other = TOKENS.map((token) => (token + 100) % 300);
    const run = (id: number, sequences: readonly SequenceRows[]) =>
      plan.submit(makeStep(id, 16, sequences)).result;
    await run(0, [
      { slot: 2, tokens: TOKENS.slice(0, 18), start: 0, blocks: [8, 3, 12] },
      { slot: 0, tokens: other.slice(0, 30), start: 0, blocks: [2, 1, 7] },
    ]);
    await run(1, [
      { slot: 0, tokens: other.slice(30), start: 30, blocks: [2, 1, 7], isSampled: true },
      { slot: 2, tokens: TOKENS.slice(18), start: 18, blocks: [8, 3, 12], isSampled: true },
    ]);
    const logits = await plan.readLogits();
    expect(logits.subarray(300)).toEqual(await whole);
    expect(logits.subarray(0, 300)).not.toEqual(await whole);
  });
});

test("sequences may share the blocks of a common prefix", async () => {
  const plan = await makePlan(GGUF, { kvBlocks: 16 });
  const run = (id: number, sequences: readonly SequenceRows[]) =>
    plan.submit(makeStep(id, 16, sequences)).result;
  await run(0, [{ slot: 0, tokens: TOKENS.slice(0, 32), start: 0, blocks: [5, 6] }]);
  await run(1, [
    {
      slot: 3,
      tokens: TOKENS.slice(32),
      start: 32,
      blocks: [5, 6, 9],
      reset: GREEDY,
      isSampled: true,
    },
  ]);
  expect(await plan.readLogits()).toEqual(await logitsAfter([TOKENS], [0, 1, 2]));
});

test("f16 KV rounds: near f32 KV and not equal to it", async () => {
  const f16 = await logitsAfter([TOKENS], [0, 1, 2], { kvCacheDtype: "f16" });
  const f32 = await logitsAfter([TOKENS], [0, 1, 2], { kvCacheDtype: "f32" });
  const worst = Math.max(...f16.map((logit, i) => Math.abs(logit - f32[i]!)));
  expect(worst).toBeGreaterThan(0);
  expect(worst).toBeLessThan(0.05); // 11 bits of K and V; logits reach 10
});

describe("sampling", () => {
  /** Runs a prompt and feeds sampled tokens back, by id or as SAMPLED_TOKEN. */
  async function generate(
    sampling: SamplingParams,
    { fedBack }: { readonly fedBack: "id" | "sampled" },
    reset?: Partial<Step["slotResets"][number]>,
  ): Promise<number[]> {
    const plan = await makePlan(GGUF, { kvBlocks: 16 });
    const blocks = [4, 1, 8];
    const tokens: number[] = [];
    for (let i = 0; i < 12; i++) {
      const input =
        i === 0 ? TOKENS.slice(0, 10) : [fedBack === "id" ? tokens[i - 1]! : SAMPLED_TOKEN];
      const start = i === 0 ? 0 : 9 + i;
      const step = makeStep(i, 16, [{ slot: 0, tokens: input, start, blocks, isSampled: true }]);
      const slotResets =
        i === 0 ? [{ slot: 0, sampling, promptTokens: [], outputTokens: [], ...reset }] : [];
      const { tokens: sampled } = await plan.submit({ ...step, slotResets }).result;
      tokens.push(...sampled);
    }
    return tokens;
  }

  test("SAMPLED_TOKEN stands for the slot's last sampled token", async () => {
    const sampling = { ...GREEDY, temperature: 0.8, seed: [11, 0] as const };
    const byId = await generate(sampling, { fedBack: "id" });
    expect(await generate(sampling, { fedBack: "sampled" })).toEqual(byId);
    expect(new Set(byId).size).toBeGreaterThan(3);
  });

  test("penalties count the reset's tokens and every token sampled since", async () => {
    const sampling = { ...GREEDY, presencePenalty: 1e6 };
    const tokens = await generate(sampling, { fedBack: "id" });
    expect(new Set(tokens).size).toBe(tokens.length); // none comes twice
    const [first] = tokens;
    const resumed = await generate(sampling, { fedBack: "id" }, { outputTokens: [first!] });
    expect(resumed).not.toContain(first);
  });

  test("logprobs are reported where asked for, of the raw logits", async () => {
    const plan = await makePlan(GGUF, { kvBlocks: 16 });
    const sampling = { ...GREEDY, logprobs: 3, logitBias: [[17, 1000]] as const };
    const step = makeStep(0, 16, [
      { slot: 0, tokens: TOKENS, start: 0, blocks: [0, 1, 2], reset: sampling, isSampled: true },
      { slot: 1, tokens: [5], start: 0, blocks: [3], isSampled: true },
    ]);
    const { tokens, logprobs } = await plan.submit(step).result;
    expect(tokens[0]).toBe(17);
    expect(logprobs[1]).toBeUndefined();
    const logits = (await plan.readLogits()).slice(0, 300);
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    expect(logprobs[0]!.logprob).toBeCloseTo(logits[17]! - Math.log(sum), 6);
    expect(logprobs[0]!.top).toHaveLength(3);
    expect(logprobs[0]!.top[0]!.logprob).toBeCloseTo(Math.max(...logits) - Math.log(sum), 6);
  });
});

describe("a broken step is found", () => {
  const submit = async (change: (step: Step) => Step): Promise<unknown> => {
    const plan = await makePlan(GGUF, { kvBlocks: 4, swapBytes: 3e5, maxSequences: 3 });
    const step = makeStep(0, 16, [
      { slot: 0, tokens: TOKENS.slice(0, 20), start: 0, blocks: [2, 1], isSampled: true },
    ]);
    return plan.submit(change(step)).result;
  };

  test.each<[string, PoolMoves, string]>([
    [
      "more copies than slots",
      { copies: [0, 1, 2, 3].map((target) => ({ source: 0, target })) },
      "A step copies 4 blocks; 3 is the most",
    ],
    [
      "a copy into nowhere",
      { copies: [{ source: 0, target: 4 }] },
      "Block 4 is not in the KV pool",
    ],
    ["a swap of no block", { swapOuts: [{ block: -1, hostBlock: 0 }] }, "Block -1 is not in"],
    [
      "two copies into one block",
      { copies: [0, 1].map((source) => ({ source, target: 3 })) },
      "The target block 3 is named twice",
    ],
    [
      "copies that depend on their order",
      { copies: [0, 1].map((source) => ({ source, target: source + 1 })) },
      "Block 1 is both source and target",
    ],
    [
      "a copy into a block that comes in",
      { swapIns: [{ block: 3, hostBlock: 0 }], copies: [{ source: 0, target: 3 }] },
      "The target block 3 is named twice",
    ],
    [
      "a host block out and in",
      { swapOuts: [{ block: 0, hostBlock: 1 }], swapIns: [{ block: 3, hostBlock: 1 }] },
      "Host block 1 is named twice",
    ],
    [
      "a host block that does not exist",
      { swapOuts: [{ block: 0, hostBlock: 18 }] },
      "Host block 18 does not exist; there are 18",
    ],
    ["nothing to swap in", { swapIns: [{ block: 3, hostBlock: 1 }] }, "holds nothing"],
  ])("%s", async (_, moves, message) => {
    await expect(submit((step) => ({ ...step, ...moves }))).rejects.toThrow(message);
  });

  test("an entry is sent twice, a sample does not follow its row", async () => {
    const entries = (step: Step) => [...step.blockTableEntries, { slot: 0, index: 1, block: 3 }];
    await expect(submit((step) => ({ ...step, blockTableEntries: entries(step) }))).rejects.toThrow(
      "Block-table entry 1 of slot 0 is named twice",
    );
    const sample = { row: 18, slot: 0, position: 20 };
    await expect(submit((step) => ({ ...step, samples: [sample] }))).rejects.toThrow(
      "A sample for position 20 is drawn from the row of position 18",
    );
    const outside = { row: 20, slot: 0, position: 21 };
    await expect(submit((step) => ({ ...step, samples: [outside] }))).rejects.toThrow(
      "row 20 of 20",
    );
  });

  test("drafts of a slot whose penalties count tokens", async () => {
    const slotResets = [
      {
        slot: 0,
        sampling: { ...GREEDY, presencePenalty: 1 },
        promptTokens: [],
        outputTokens: [],
      },
    ];
    const samples = [18, 19].map((row) => ({ row, slot: 0, position: row + 1 }));
    await expect(submit((step) => ({ ...step, samples, slotResets }))).rejects.toThrow(
      "several samples",
    );
  });

  test("K and V go where the block table does not say", async () => {
    const rows = (step: Step) => step.rows.map((row) => ({ ...row, kvSlot: row.kvSlot ^ 1 }));
    await expect(submit((step) => ({ ...step, rows: rows(step) }))).rejects.toThrow("block table");
  });

  test("a position, or a block-table entry, that no sequence of the pool's size has", async () => {
    const rows = (step: Step) => step.rows.map((row) => ({ ...row, position: row.position + 50 }));
    await expect(submit((step) => ({ ...step, rows: rows(step) }))).rejects.toThrow(
      "Position 64 is past the context of 64",
    );
    const entries = [{ slot: 0, index: 4, block: 3 }];
    await expect(submit((step) => ({ ...step, blockTableEntries: entries }))).rejects.toThrow(
      "Entry 4 of slot 0 is past a block table of 4",
    );
  });

  test("a block is missing or outside the pool", async () => {
    await expect(submit((step) => ({ ...step, blockTableEntries: [] }))).rejects.toThrow(
      "no block",
    );
    const entries = [{ slot: 0, index: 0, block: 4 }];
    await expect(submit((step) => ({ ...step, blockTableEntries: entries }))).rejects.toThrow(
      "not in the KV pool",
    );
  });

  test("a slot was never reset, a token does not exist", async () => {
    await expect(submit((step) => ({ ...step, slotResets: [] }))).rejects.toThrow("never reset");
    const rows = (step: Step) => step.rows.map((row) => ({ ...row, token: 300 }));
    await expect(submit((step) => ({ ...step, rows: rows(step) }))).rejects.toThrow("vocabulary");
  });

  test("the plan or its back end was disposed", async () => {
    const backend = createReferenceBackend();
    const plan = await makePlan(GGUF, { kvBlocks: 4 }, backend);
    backend.dispose();
    backend.dispose();
    const step = makeStep(0, 16, [{ slot: 0, tokens: [1], start: 0, blocks: [0] }]);
    await expect(plan.submit(step).result).rejects.toMatchObject({ code: "disposed" });
    await expect(plan.readLogits()).rejects.toMatchObject({ code: "disposed" });
  });
});
