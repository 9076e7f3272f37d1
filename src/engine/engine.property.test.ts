import fc from "fast-check";
import { expect, it } from "vitest";
import { QuireError } from "../errors.ts";
import { GREEDY } from "./sampling.ts";
import { EngineWorld, withSeed } from "./testing/engineWorld.ts";

// Random histories on pools so small that nearly everything collides: preemption, eviction, sharing,
// reuse of slots and blocks. Prompts use two token ids, so that many share prefixes.

const prompt = fc.array(fc.integer({ min: 1, max: 2 }), {
  minLength: 1,
  maxLength: 24,
  size: "max",
});

const add = fc.record({
  kind: fc.constant("add" as const),
  prompt,
  answers: fc.oneof(
    { weight: 6, arbitrary: fc.constant("samples" as const) },
    { weight: 1, arbitrary: fc.constant("best" as const) },
    { weight: 2, arbitrary: fc.constant("beams" as const) },
  ),
  n: fc.integer({ min: 1, max: 3 }),
  /** Samples or beams more than n. */
  more: fc.nat(2),
  lengthPenalty: fc.constantFrom(0, 1, 2),
  earlyStopping: fc.constantFrom(true, false, "never" as const),
  maxTokens: fc.integer({ min: 0, max: 20 }),
  seed: fc.nat(3),
  penalty: fc.boolean(),
  ignoreEos: fc.boolean(),
  promptLogprobs: fc.oneof(
    { weight: 3, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.nat(2) },
  ),
  priority: fc.constantFrom(-1, 0, 0, 1),
  cacheSalt: fc.constantFrom("", "", "", "pepper"),
  numSpeculativeTokens: fc.constantFrom(0, 0, 1, 4),
  deadlineMs: fc.constantFrom(undefined, undefined, undefined, 20, 200),
  ttlMs: fc.constantFrom(undefined, undefined, 5, 1000, Number.POSITIVE_INFINITY),
  session: fc.constantFrom(undefined, undefined, "one", "two"),
});

const pick = fc.nat(50);
const interruption = fc.oneof(
  fc.record({ kind: fc.constant("abort" as const), pick }),
  fc.record({ kind: fc.constant("finish" as const), pick, index: fc.nat(2) }),
  fc.record({ kind: fc.constant("preemptAll" as const) }),
  fc.record({ kind: fc.constant("replaceExecutor" as const) }),
  fc.record({ kind: fc.constant("resetPrefixCache" as const) }),
  fc.record({ kind: fc.constant("endSession" as const), session: fc.constantFrom("one", "two") }),
);

const operation = fc.oneof(
  { weight: 4, arbitrary: add },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("step" as const), times: fc.nat(6) }) },
  { weight: 3, arbitrary: interruption },
  // The same interruptions while a step is in flight.
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("flight" as const), interruption }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("fail" as const), early: fc.boolean() }) },
  // A later turn of a conversation: an earlier prompt and its answer so far.
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("continue" as const), pick, prompt }) },
);

const sizes = fc.record({
  numBlocks: fc.integer({ min: 3, max: 16 }),
  blockSize: fc.integer({ min: 1, max: 5 }),
  maxSequences: fc.integer({ min: 1, max: 5 }),
  maxRows: fc.integer({ min: 1, max: 40 }),
  maxContext: fc.integer({ min: 10, max: 60 }),
  numHostBlocks: fc.constantFrom(0, 4, 20),
  maxStepsInFlight: fc.constantFrom(1, 3, 3),
  waitingOrder: fc.constantFrom("fcfs" as const, "longest-prefix" as const),
  /** A copying model, for drafts to be right. */
  copyPeriod: fc.constantFrom(undefined, 2, 3),
  /** Whether requests without a session keep their prompts too. */
  keepsForAnyone: fc.boolean(),
});

/** What a later turn of a conversation asks for. */
const PLAIN = {
  answers: "samples" as const,
  n: 1,
  more: 0,
  lengthPenalty: 1 as const,
  earlyStopping: true as const,
  maxTokens: 5,
  seed: 1,
  penalty: false,
  ignoreEos: true,
  promptLogprobs: undefined,
  priority: 0 as const,
  cacheSalt: "" as const,
  numSpeculativeTokens: 0 as const,
  deadlineMs: undefined,
  ttlMs: undefined,
};

const FAILURE = new Error("lost");

class History {
  readonly world: EngineWorld;
  numAdded = 0;
  /** Sessions that have a request since they ended. */
  readonly sessions = new Set<string>();
  readonly #keepsForAnyone: boolean;
  /** Preemptions because the pool was full, not because the history said so. */
  numForced = 0;

  constructor(options: typeof sizes extends fc.Arbitrary<infer T> ? T : never) {
    this.world = new EngineWorld({ ...options, endTokens: new Set([0, 11, 22, 33, 44]) });
    this.#keepsForAnyone = options.keepsForAnyone;
  }

  add(fields: Omit<typeof add extends fc.Arbitrary<infer T> ? T : never, "kind">): void {
    const { prompt: promptTokens, answers, n, more, seed, penalty, promptLogprobs, ttlMs } = fields;
    const { lengthPenalty, earlyStopping, session } = fields;
    const isKept = ttlMs !== undefined && (session !== undefined || this.#keepsForAnyone);
    const maxTokens =
      promptLogprobs === undefined ? Math.max(1, fields.maxTokens) : fields.maxTokens;
    const sampling = withSeed(seed, penalty ? { repetitionPenalty: 1.2 } : {});
    const width = n + more;
    const beam = { width, lengthPenalty, earlyStopping };
    const request = {
      ...fields,
      maxTokens,
      ...(answers === "beams" ? { sampling: GREEDY, beam } : { sampling }),
      ...(answers === "best" ? { bestOf: n + more } : {}),
      ...(isKept ? { keep: { ttlMs } } : {}),
    };
    try {
      this.world.add(this.numAdded, promptTokens, request);
      this.numAdded += 1;
      if (session !== undefined) this.sessions.add(session);
    } catch (error) {
      const { maxContext, numBlocks, blockSize, maxSequences, maxRows } = this.world.sizes;
      const length = Math.min(promptTokens.length + maxTokens, maxContext);
      const least = promptTokens.length + Math.min(1, maxTokens);
      const shared = Math.floor(promptTokens.length / blockSize);
      const tails = (answers === "beams" ? width : 1) * (Math.ceil(length / blockSize) - shared);
      const hasSlots = answers !== "beams" || width <= Math.min(maxSequences, maxRows);
      const fits = least <= maxContext && shared + tails <= numBlocks && hasSlots;
      if (!(error instanceof QuireError) || fits) throw error;
    }
  }

  interrupt(op: typeof interruption extends fc.Arbitrary<infer T> ? T : never): void {
    const { world } = this;
    if (op.kind === "abort") world.abort(op.pick % (this.numAdded + 1));
    else if (op.kind === "finish") {
      world.note([world.engine.finishSequence(op.pick % (this.numAdded + 1), op.index)]);
    } else if (op.kind === "preemptAll") world.engine.preemptAll();
    else if (op.kind === "resetPrefixCache") world.engine.resetPrefixCache();
    else if (op.kind === "endSession") {
      world.engine.endSession(op.session);
      this.sessions.delete(op.session);
    } else world.replaceExecutor();
    world.engine.checkIntegrity();
  }

  /** A step that nobody had work in any more may have failed: whoever comes next is told. */
  async #step(): Promise<void> {
    const { executor } = this.world;
    try {
      await this.world.step();
    } catch (error) {
      if (error !== FAILURE || !executor.hasFailed) throw error;
      executor.hasFailed = false;
    }
  }

  async steps(limit: number): Promise<void> {
    const { engine } = this.world;
    const before = engine.stats().preemptions;
    for (let i = 0; i < limit && engine.hasWork; i++) await this.#step();
    this.numForced += engine.stats().preemptions - before;
  }

  async apply(op: typeof operation extends fc.Arbitrary<infer T> ? T : never): Promise<void> {
    const { world } = this;
    if (op.kind === "add") this.add(op);
    else if (op.kind === "continue" && this.numAdded > 0) {
      const { request, tokens } = world.of(op.pick % this.numAdded);
      const history = [...request.promptTokens, ...tokens, ...op.prompt];
      this.add({ ...PLAIN, session: request.session === "one" ? "one" : "two", prompt: history });
    } else if (op.kind === "step") {
      await this.steps(op.times);
    } else if (op.kind === "flight") {
      const { executor } = world;
      executor.onFlight = () => this.interrupt(op.interruption);
      await this.#step();
      executor.onFlight = undefined;
    } else if (op.kind === "fail" && world.engine.hasWork) {
      // With steps in flight already, the failure comes to the step behind them.
      world.executor.failure = { error: FAILURE, early: op.early };
      await world.stepUntilFailure(FAILURE);
    } else if (op.kind !== "continue" && op.kind !== "fail") this.interrupt(op);
    world.engine.checkIntegrity();
  }
}

it("over random histories the books stay right, every request ends, and tokens do not depend on scheduling", async () => {
  let steps = 0;
  let forced = 0;
  let hits = 0;
  let scored = 0;
  let swaps = 0;
  let drafts = 0;
  let accepted = 0;
  let pipelined = 0;
  let ended = 0;
  await fc.assert(
    fc.asyncProperty(
      sizes,
      fc.array(operation, { minLength: 8, maxLength: 40, size: "max" }),
      async (options, operations) => {
        const history = new History(options);
        for (const op of operations) await history.apply(op);
        const { world } = history;
        await history.steps(10_000);
        expect(world.engine.hasWork).toBe(false);
        world.checkDelivered();
        for (const { finishReason } of world.received.values()) expect(finishReason).toBeDefined();
        const stats = world.engine.stats();
        expect(stats).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
        if (!options.keepsForAnyone && history.sessions.size === 0) {
          expect(stats.kvBlocksKept).toBe(0);
          if (operations.some(({ kind }) => kind === "endSession" || kind === "flight")) ended += 1;
        }
        steps += stats.steps;
        if (operations.every(({ kind }) => kind !== "fail")) {
          history.world.add("last", [1], { maxTokens: 1 }); // carries what is released
          await history.steps(10);
          expect(world.executor.numHostBlocks).toBe(0);
        }
        forced += history.numForced;
        hits += stats.prefixCacheHits;
        swaps += stats.swaps;
        drafts += stats.metrics.spec_decode_num_draft_tokens;
        accepted += stats.metrics.spec_decode_num_accepted_tokens;
        if (world.executor.mostInFlight > 1) pipelined += 1;
        for (const { promptScores } of world.received.values()) scored += promptScores?.length ?? 0;
      },
    ),
    { numRuns: 1000 },
  );
  // The histories did meet what they are about; half of what they usually meet.
  expect(steps).toBeGreaterThan(10_000);
  expect(forced).toBeGreaterThan(250);
  expect(hits).toBeGreaterThan(2500);
  expect(scored).toBeGreaterThan(900);
  expect(swaps).toBeGreaterThan(65);
  expect(accepted).toBeGreaterThan(50);
  expect(drafts - accepted).toBeGreaterThan(20);
  expect(pipelined).toBeGreaterThan(60);
  expect(ended).toBeGreaterThan(20);
}, 60_000);
