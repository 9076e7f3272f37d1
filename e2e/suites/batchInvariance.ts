import { afterAll, describe, expect, test } from "vitest";
import type { Backend, Plan } from "../../src/backends/ops.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { EngineRequest } from "../../src/engine/engineRequest.ts";
import { GREEDY, type SamplingParams } from "../../src/engine/sampling.ts";
import type { TensorType } from "../../src/weights/tensorType.ts";
import { makePlan, makeStep } from "../fixtures/drivePlan.ts";
import { Random } from "../fixtures/random.ts";
import { makeTinyModel } from "../fixtures/tinyModel.ts";

const MAX_CONTEXT = 128;
const VOCABULARY = 300;
const BLOCK_SIZE = 16;

const SAMPLINGS: readonly Partial<SamplingParams>[] = [
  {},
  { temperature: 1 },
  { temperature: 0.8, topK: 20 },
  { temperature: 1.2, topP: 0.9 },
  { temperature: 1, repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.2 },
  { repetitionPenalty: 1.2 },
  { temperature: 1, minP: 0.05 },
  { temperature: 0.7, topK: 40, topP: 0.95 },
  {
    temperature: 1,
    logitBias: [
      [7, 3],
      [11, -100],
    ],
  },
  { temperature: 1.5, topP: 0.8, frequencyPenalty: 1 },
];
const PROMPT_LENGTHS = [1, 70, 16, 17, 33, 5, 48, 2, 64, 15];

/** A request gives the same tokens in whatever company; the engine loses nothing over a real plan. */
export function describeBatchInvariance(
  on: string,
  backend: Backend,
  types: readonly TensorType[] = ["Q4_1", "Q4_K"],
): void {
  describe.each(types)(`batch invariance of %s on ${on}`, (type) => {
    const model = makeTinyModel({ type, layers: 2, seed: 31, contextLength: MAX_CONTEXT });
    const plan = makePlan(
      model,
      { kvBlocks: 96, maxSequences: 10, maxRows: 48, maxContext: MAX_CONTEXT },
      backend,
    );
    afterAll(async () => (await plan).dispose());

    test("ten requests alone, together and preempted give the same tokens", async () => {
      const requests = tenRequests();
      const alone = new Map<string, readonly number[]>();
      for (const request of requests) {
        const { tokens } = await runAll(await plan, [request], 96);
        alone.set(String(request.id), tokens.get(String(request.id))!);
      }
      for (const [id, tokens] of alone) expect(tokens, id).toHaveLength(24);
      expect(new Set([...alone.values()].map(String)).size).toBe(10);

      const together = await runAll(await plan, requests, 96);
      expect(together.preemptions).toBe(0);
      expect(together.tokens).toEqual(alone);

      // 70 + 24 tokens of the longest take 6 blocks; all ten together take 39.
      const preempted = await runAll(await plan, requests, 14);
      expect(preempted.preemptions).toBeGreaterThan(0);
      expect(preempted.tokens).toEqual(alone);
    });

    test("a row's logits are the same bits alone, in a batch and after a chunked prompt", async () => {
      const random = new Random(8);
      const tokens = Array.from({ length: 40 }, () => random.integer(0, VOCABULARY - 1));
      const run = async (chunks: readonly number[], others: number) => {
        let start = 0;
        for (const [id, count] of chunks.entries()) {
          const own = {
            slot: 3,
            tokens: tokens.slice(start, start + count),
            start,
            isSampled: true,
          };
          const company = Array.from({ length: others }, (_, i) => ({
            slot: 4 + i,
            tokens: [(i * 37 + id) % VOCABULARY],
            start: id,
            blocks: [90 - i],
            isSampled: true,
          }));
          const blocks = [5, 0, 17];
          const step = makeStep(id, BLOCK_SIZE, [{ ...own, blocks }, ...company]);
          await (await plan).submit(step).result;
          start += count;
        }
        const logits = await (await plan).readLogits();
        return new Uint32Array(logits.buffer, 0, VOCABULARY);
      };
      const atOnce = await run([40], 0);
      expect(await run([1, 2, 3, 4, 5, 8, 9, 7, 1], 0)).toEqual(atOnce);
      expect(await run([17, 22, 1], 6)).toEqual(atOnce);
      expect(await run([39, 1], 1)).toEqual(atOnce);
    });
  });

  test("100 requests of random lengths with aborts on 64 blocks all end, and no block is lost", async () => {
    const model = makeTinyModel({ type: "Q4_1", layers: 1, seed: 32, contextLength: MAX_CONTEXT });
    const plan = await makePlan(
      model,
      { kvBlocks: 64, maxSequences: 12, maxRows: 48, maxContext: MAX_CONTEXT },
      backend,
    );
    const engine = createEngine(plan, 64, 12);
    const random = new Random(99);
    const open = new Set<number>();
    let aborted = 0;
    let added = 0;
    while (added < 100 || engine.hasWork) {
      for (let i = random.integer(0, 12); i > 0 && added < 100; i--) {
        const id = added++;
        engine.add({
          id,
          promptTokens: Array.from({ length: random.integer(1, 100) }, () =>
            random.integer(3, 299),
          ),
          n: 1,
          maxTokens: random.integer(1, 28),
          stopTokenIds: [],
          sampling: { ...GREEDY, temperature: id % 2, seed: [id, 0] },
        });
        open.add(id);
      }
      if (random.integer(0, 3) === 0) {
        const id = [...open][random.integer(0, open.size)];
        if (id !== undefined) {
          for (const output of engine.abort(id)) expect(output.finishReason).toBe("abort");
          open.delete(id);
          aborted += 1;
        }
      }
      for (const { requestId, finishReason } of await engine.step()) {
        if (finishReason !== undefined) open.delete(Number(requestId));
      }
      engine.checkIntegrity();
    }
    expect(open.size).toBe(0);
    expect(aborted).toBeGreaterThan(3);
    const { running, waiting, kvBlocksUsed, kvBlocksTotal, kvBlocksPeak } = engine.stats();
    expect({ running, waiting, kvBlocksUsed, kvBlocksTotal }).toEqual({
      running: 0,
      waiting: 0,
      kvBlocksUsed: 0,
      kvBlocksTotal: 64,
    });
    expect(kvBlocksPeak).toBeGreaterThan(48);
    plan.dispose();
  });
}

function tenRequests(): readonly EngineRequest[] {
  const random = new Random(17);
  return SAMPLINGS.map((sampling, i) => ({
    id: `request ${i}`,
    promptTokens: Array.from({ length: PROMPT_LENGTHS[i]! }, () => random.integer(3, 299)),
    n: 1,
    maxTokens: 24,
    stopTokenIds: [],
    ignoreEos: true,
    sampling: { ...GREEDY, seed: [1000 + i, 7], ...sampling },
  }));
}

function createEngine(plan: Plan, numBlocks: number, maxSequences: number): Engine {
  return new Engine({
    executor: plan,
    numBlocks,
    blockSize: BLOCK_SIZE,
    maxSequences,
    maxRows: plan.maxRows,
    maxContext: MAX_CONTEXT,
    endTokens: new Set([2]),
    now: () => performance.now(),
    // Steps of one size on machines of every speed: the course of the test does not change.
    stepBudgetMs: 10_000,
  });
}

/** Runs requests to their ends through an engine of their own, which uses the first blocks of the plan's pool. */
async function runAll(plan: Plan, requests: readonly EngineRequest[], numBlocks: number) {
  const engine = createEngine(plan, numBlocks, 10);
  const tokens = new Map(requests.map(({ id }) => [String(id), [] as number[]]));
  for (const request of requests) engine.add(request);
  while (engine.hasWork) {
    for (const output of await engine.step()) {
      tokens.get(String(output.requestId))!.push(...output.tokens);
    }
  }
  engine.checkIntegrity();
  return { tokens, preemptions: engine.stats().preemptions };
}
