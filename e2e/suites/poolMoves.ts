import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend, KvCacheDtype, Plan } from "../../src/backends/ops.ts";
import { GREEDY, type SamplingParams } from "../../src/engine/sampling.ts";
import { SAMPLED_TOKEN } from "../../src/engine/step.ts";
import { makePlan, type SequenceRows } from "../fixtures/drivePlan.ts";
import { Random } from "../fixtures/random.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { PoolDriver } from "./poolDriver.ts";
import { walkPool } from "./poolWalk.ts";

const VOCABULARY = 300;
const NUM_BLOCKS = 28;
const NUM_HOST_BLOCKS = 16;
const MAX_SEQUENCES = 6;

interface Shape {
  readonly blockSize: 8 | 16 | 32;
  readonly kvCacheDtype: KvCacheDtype;
  readonly layers: number;
  readonly headDim: number;
}

const SHAPES: readonly Shape[] = [
  { blockSize: 8, kvCacheDtype: "f16", layers: 5, headDim: 40 },
  { blockSize: 16, kvCacheDtype: "f32", layers: 1, headDim: 64 },
  { blockSize: 32, kvCacheDtype: "f16", layers: 2, headDim: 24 },
];

/**
 * Block copies, swaps, forks and drafts leave tokens and logits the same bits. `open` is called once; the
 * suite disposes of the back end.
 */
export function describePoolMoves(on: string, open: () => Promise<Backend>): void {
  describe(`moves in the KV pool on ${on}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await open();
    });
    afterAll(() => backend.dispose());

    describe.each(SHAPES)("$layers layers, blocks of $blockSize, $kvCacheDtype", (shape) => {
      describeShape(shape, () => backend);
    });
  });
}

function describeShape(shape: Shape, backend: () => Backend): void {
  const { blockSize, kvCacheDtype, layers, headDim } = shape;
  const random = new Random(blockSize);
  const randomTokens = (count: number): number[] =>
    Array.from({ length: count }, () => random.integer(3, VOCABULARY - 1));
  // Two and a half blocks: the last one is shared before it is full.
  const prompt = randomTokens(2.5 * blockSize);
  const numOut = blockSize / 2 + 3; // past the end of the last block

  let plan: Plan;
  let driver: PoolDriver;
  beforeAll(async () => {
    const model = makeTinyModel({ type: "Q8_0", layers, headDim, seed: 40 + layers });
    const blockBytes = layers * 2 * 2 * blockSize * headDim * (kvCacheDtype === "f16" ? 2 : 4);
    const options = {
      blockSize,
      kvCacheDtype,
      kvBlocks: NUM_BLOCKS,
      swapBytes: NUM_HOST_BLOCKS * blockBytes,
      maxSequences: MAX_SEQUENCES,
      maxRows: 136,
      maxContext: 160,
    };
    plan = await makePlan(model, options, backend());
    driver = new PoolDriver(plan, blockSize, VOCABULARY);
    expect(plan.numBlocks).toBe(NUM_BLOCKS);
    expect(plan.blockBytes).toBe(blockBytes);
  });
  afterAll(() => {
    plan.dispose();
    expect(plan.memory.swapped).toBe(0);
  });

  /** Logits of the prompt's last row and of those of `tokens`, with nothing moved and nobody else. */
  async function alone(tokens: readonly number[]): Promise<Uint32Array[]> {
    const own = { slot: 5, blocks: [24, 20, 22, 21, 23], isSampled: true };
    const found = [...(await driver.run([{ ...own, tokens: prompt, start: 0 }])).logits];
    for (const [i, token] of tokens.entries()) {
      const start = prompt.length + i;
      found.push(...(await driver.run([{ ...own, tokens: [token], start }])).logits);
    }
    return found;
  }

  test("sequences go on in copies of a block that others write too", async () => {
    const tails = Array.from({ length: 4 }, () => randomTokens(numOut));
    const expected: Uint32Array[][] = [];
    for (const tail of tails) expected.push(await alone(tail));

    const shared = [3, 9];
    await driver.run([{ slot: 0, tokens: prompt, start: 0, blocks: [...shared, 4] }]);
    // The first keeps the block, the others take copies in the step of their first tokens.
    const lastBlocks = [4, 0, 27, 11];
    const copies = lastBlocks.slice(1).map((target) => ({ source: 4, target }));
    for (let i = 0; i < numOut; i++) {
      const rows = tails.map((tail, slot): SequenceRows => {
        const blocks = [...shared, lastBlocks[slot]!, 12 + slot];
        const reset = i === 0 && slot > 0 ? { reset: GREEDY } : {};
        const start = prompt.length + i;
        return { slot, tokens: [tail[i]!], start, blocks, isSampled: true, ...reset };
      });
      const { logits } = await driver.run(rows, i === 0 ? { copies } : {});
      expect(logits).toEqual(expected.map((own) => own[i + 1]));
    }
  });

  test("n samples of one row are what n sequences of that prompt draw", async () => {
    const samplings: readonly SamplingParams[] = [
      { ...GREEDY, temperature: 1, seed: [1, 0], logprobs: 2 },
      { ...GREEDY, temperature: 0.8, topK: 30, topP: 0.9, seed: [2, 0] },
      { ...GREEDY, temperature: 1, presencePenalty: 3, seed: [3, 0], logprobs: 0 },
      { ...GREEDY, logitBias: [[17, 2]] },
    ];
    const run = async (isForked: boolean) => {
      const tables = samplings.map((_, slot) =>
        isForked ? [8, 2, 25, 4 + slot] : [4 * slot, 4 * slot + 1, 4 * slot + 2, 4 * slot + 3],
      );
      if (!isForked) {
        // Without the last row, so that all sample in one step.
        for (const [slot, blocks] of tables.entries()) {
          await driver.run([{ slot, tokens: prompt.slice(0, -1), start: 0, blocks }]);
        }
      }
      const first = samplings.map((reset, slot): SequenceRows => {
        const blocks = tables[slot]!;
        const own = { slot, blocks, reset, isSampled: true };
        if (!isForked) return { ...own, tokens: prompt.slice(-1), start: prompt.length - 1 };
        if (slot === 0) return { ...own, tokens: prompt, start: 0 };
        return { ...own, tokens: [], start: prompt.length };
      });
      const outcomes = [await driver.run(first)];
      // Then each writes into the block that they share: all but the last to do so take a copy.
      const copies = isForked ? [13, 14, 15].map((target) => ({ source: 25, target })) : [];
      for (const [slot, { target }] of copies.entries()) tables[slot]![2] = target;
      for (let i = 0; i < numOut; i++) {
        const rows = tables.map((blocks, slot): SequenceRows => {
          const tokens = [SAMPLED_TOKEN];
          return { slot, tokens, start: prompt.length + i, blocks, isSampled: true };
        });
        outcomes.push(await driver.run(rows, i === 0 ? { copies } : {}));
      }
      return outcomes;
    };
    const apart = await run(false);
    expect(await run(true)).toEqual(apart);
    const sampled = apart.map(({ result }) => result.tokens);
    expect(new Set(sampled.map(String)).size).toBeGreaterThan(3);
  });

  test("tokens sampled behind right drafts are those of single steps; wrong ones leave nothing", async () => {
    const sampling = { ...GREEDY, temperature: 0.9, topK: 50, seed: [5, 6] as const, logprobs: 1 };
    const own = { slot: 2, blocks: [6, 1, 19, 7, 26], isSampled: true };
    const first = { ...own, tokens: prompt, start: 0, reset: sampling };
    const numSteps = 2 * blockSize;
    const one = await driver.run([first]);
    const tokens = [...one.result.tokens];
    const logits = [...one.logits];
    const logprobs = [...one.result.logprobs];
    for (let i = 0; i < numSteps; i++) {
      const start = prompt.length + i;
      const next = await driver.run([{ ...own, tokens: [SAMPLED_TOKEN], start }]);
      tokens.push(...next.result.tokens);
      logits.push(...next.logits);
      logprobs.push(...next.result.logprobs);
    }

    expect((await driver.run([first])).result.tokens).toEqual(tokens.slice(0, 1));
    let at = 0; // newest token that is known
    let numSubmitted = 0;
    while (at < numSteps - 4) {
      const numDrafts = 1 + (numSubmitted++ % 4);
      const drafts = tokens.slice(at + 1, at + 1 + numDrafts);
      const numRight = numSubmitted % 3 === 0 ? numDrafts >> 1 : numDrafts;
      for (let i = numRight; i < numDrafts; i++) drafts[i] = (drafts[i]! + 1) % VOCABULARY;
      const rows = { ...own, tokens: [tokens[at]!, ...drafts], start: prompt.length + at };
      const company = { slot: 0, tokens: [at], start: 0, blocks: [0], isSampled: true };
      const found = await driver.run([{ ...rows, numDrafts }, company]);
      const end = at + 1 + numRight + 1; // tokens that are known then
      const numKnown = end - at - 1;
      expect(found.result.tokens.slice(0, numKnown)).toEqual(tokens.slice(at + 1, end));
      expect(found.logits.slice(0, numKnown)).toEqual(logits.slice(at + 1, end));
      expect(found.result.logprobs.slice(0, numKnown)).toEqual(logprobs.slice(at + 1, end));
      expect(found.result.tokens).toHaveLength(numDrafts + 2);
      at = end - 1;
    }
    expect(numSubmitted).toBeLessThan(numSteps / 2);
  });

  test("swapped-out sequences go on elsewhere; a step swaps out, then in, then copies, then writes", async () => {
    const tails = [randomTokens(3), randomTokens(3), randomTokens(3)];
    const expected: Uint32Array[][] = [];
    for (const tail of tails) expected.push(await alone(tail));
    const { blockBytes } = plan;
    const row = (slot: number, i: number, blocks: readonly number[]): SequenceRows => {
      const start = prompt.length + i;
      return { slot, tokens: [tails[slot]![i]!], start, blocks, isSampled: true };
    };
    await driver.run([{ slot: 0, tokens: prompt, start: 0, blocks: [5, 6, 7] }]);
    expect(plan.memory.swapped).toBe(0);

    // The first leaves in the step that writes another's prompt into its blocks.
    const swapOuts = [7, 5, 6].map((block, i) => ({ block, hostBlock: 2 + i }));
    await driver.run([{ slot: 1, tokens: prompt, start: 0, blocks: [6, 7, 5] }], { swapOuts });
    expect(plan.memory.swapped).toBe(3 * blockBytes);
    const before = await driver.run([row(1, 0, [6, 7, 5])]);
    expect(before.logits).toEqual([expected[1]![1]]);

    // It returns to those very blocks while the second leaves them, and a third forks from it.
    const swapIns = [5, 7, 6].map((block, i) => ({ block, hostBlock: 2 + i }));
    const second = await driver.run(
      [
        { ...row(0, 0, [7, 6, 5]), reset: GREEDY },
        { ...row(2, 0, [7, 6, 10]), reset: GREEDY },
      ],
      {
        swapOuts: [6, 7, 5].map((block, i) => ({ block, hostBlock: 9 + i })),
        swapIns,
        copies: [{ source: 5, target: 10 }],
      },
    );
    expect(second.logits).toEqual([expected[0]![1], expected[2]![1]]);
    expect(plan.memory.swapped).toBe(3 * blockBytes);

    // A host block that nobody swapped in is taken by another: the newer bytes count.
    await driver.run([row(0, 1, [7, 6, 5])], { swapOuts: [{ block: 5, hostBlock: 5 }] });
    expect(plan.memory.swapped).toBe(4 * blockBytes);
    await driver.run([row(0, 2, [7, 6, 5])], { swapOuts: [{ block: 10, hostBlock: 5 }] });
    expect(plan.memory.swapped).toBe(4 * blockBytes);

    const third = await driver.run(
      [
        { ...row(1, 1, [1, 2, 3]), reset: GREEDY },
        { ...row(2, 1, [7, 6, 4]), reset: GREEDY },
      ],
      {
        swapIns: [
          ...[1, 2, 3].map((block, i) => ({ block, hostBlock: 9 + i })),
          { block: 4, hostBlock: 5 },
        ],
      },
    );
    expect(third.logits).toEqual([expected[1]![2], expected[2]![2]]);
    expect(plan.memory.swapped).toBe(0);
  });

  test("host blocks that are released hold nothing; what is on its way to one is dropped", async () => {
    const tail = randomTokens(1);
    const expected = await alone(tail);
    const { blockBytes } = plan;
    const busy = { slot: 4, blocks: [26], isSampled: true };
    await driver.run([{ slot: 0, tokens: prompt, start: 0, blocks: [5, 6, 7] }]);
    const swapOuts = [5, 6, 7].map((block, i) => ({ block, hostBlock: i }));
    const unused = [8, 9].map((block, i) => ({ block, hostBlock: 3 + i }));
    const leaving = driver.submit([{ ...busy, tokens: [1], start: 0 }], {
      swapOuts: [...swapOuts, ...unused],
    });
    // The second was never given anything.
    const later = driver.submit([{ ...busy, tokens: [2], start: 1 }], { hostReleases: [4, 11] });
    await Promise.all([leaving.result, later.result]);
    expect(plan.memory.swapped).toBe(4 * blockBytes);

    const swapIns = [1, 2, 3].map((block, i) => ({ block, hostBlock: i }));
    const start = prompt.length;
    const back = { slot: 0, tokens: tail, start, blocks: [1, 2, 3], isSampled: true };
    const { logits } = await driver.run([{ ...back, reset: GREEDY }], {
      hostReleases: [3],
      swapIns,
    });
    expect(logits).toEqual([expected[1]]);
    expect(plan.memory.swapped).toBe(0);
  });

  test("whole tables move at once, and other steps do not wait for them", async () => {
    const tails = [randomTokens(2), randomTokens(2), randomTokens(2), randomTokens(2)];
    const expected: Uint32Array[][] = [];
    for (const tail of tails) expected.push(await alone(tail));
    const tables = tails.map((_, slot) => [3 * slot, 3 * slot + 1, 3 * slot + 2]);
    for (const [slot, blocks] of tables.entries()) {
      await driver.run([{ slot, tokens: prompt, start: 0, blocks }]);
    }
    const swapOuts = tables.flat().map((block, i) => ({ block, hostBlock: (i * 5) % 12 }));
    const busy = { slot: 4, blocks: [26, 27], isSampled: true };
    const leaving = driver.submit([{ ...busy, tokens: [9], start: 0 }], { swapOuts });
    const later = [driver.submit([{ slot: 5, tokens: prompt, start: 0, blocks: [2, 1, 0] }])];
    for (let start = 1; start < 4; start++) {
      later.push(driver.submit([{ ...busy, tokens: [SAMPLED_TOKEN], start }]));
    }
    await leaving.result;
    expect(plan.memory.swapped).toBe(12 * plan.blockBytes);
    await Promise.all(later.map(({ result }) => result));

    const moved = tables.map((blocks) => blocks.map((block) => 23 - block));
    const swapIns = moved.flat().map((block, i) => ({ block, hostBlock: (i * 5) % 12 }));
    for (let i = 0; i < 2; i++) {
      const rows = moved.map((blocks, slot): SequenceRows => {
        const start = prompt.length + i;
        const own = { slot, tokens: [tails[slot]![i]!], start, blocks, isSampled: true };
        return i === 0 ? { ...own, reset: GREEDY } : own;
      });
      const { logits } = await driver.run(rows, i === 0 ? { swapIns } : {});
      expect(logits).toEqual(expected.map((own) => own[i + 1]));
    }
    expect(plan.memory.swapped).toBe(0);
  });

  test("a random walk of forks, copies, swaps and drafts", async () => {
    await walkPool({
      driver,
      blockSize,
      numBlocks: NUM_BLOCKS,
      numHostBlocks: NUM_HOST_BLOCKS,
      maxSequences: MAX_SEQUENCES,
      vocabularySize: VOCABULARY,
      seed: 100 + blockSize,
    });
  });
}
