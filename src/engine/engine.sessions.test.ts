import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { GREEDY } from "./sampling.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";
import { SchedulerWorld } from "./testing/schedulerWorld.ts";

const FOR_EVER = { ttlMs: Number.POSITIVE_INFINITY };
const NO_END = { endTokens: new Set<number>() };

describe("A session that ends while its request runs", () => {
  const beam = { width: 2, lengthPenalty: 1, earlyStopping: false as const };

  it.each([
    ["a sample", {}],
    ["samples", { n: 3 }],
    ["beams", { n: 2, sampling: GREEDY, beam }],
  ])("keeps nothing of %s, whoever is told first", async (_, fields) => {
    for (const isAborted of [true, false]) {
      for (const endsFirst of [true, false]) {
        for (const numSteps of [1, 5]) {
          const world = new EngineWorld({ ...NO_END, numBlocks: 30 });
          const session = "chat";
          world.add("stranger", tokens(24, 500), { maxTokens: 1 });
          await world.run();
          world.add("a", tokens(40), { ...fields, maxTokens: 9, session, keep: FOR_EVER });
          for (let i = 0; i < numSteps; i++) await world.step();
          expect(world.engine.stats().running).toBeGreaterThan(0);
          if (endsFirst) world.engine.endSession(session);
          if (isAborted) world.abort("a");
          else await world.run();
          if (!endsFirst) world.engine.endSession(session);
          expect(world.engine.stats().kvBlocksKept).toBe(0);
          world.engine.checkIntegrity();
          if ("beam" in fields) continue; // those that were dropped have left blocks too
          // All that is not the stranger's, which is older.
          world.add("large", tokens(95, 1000), { maxTokens: 1 });
          await world.run();
          world.add("again", [...tokens(24, 500), 1], { maxTokens: 1 });
          await world.run();
          expect(world.of("again").cachedTokens).toBe(24);
          world.checkDelivered();
        }
      }
    }
  });

  it("keeps nothing of a request that has not begun, and what comes under its name later as ever", async () => {
    const world = new EngineWorld({ ...NO_END, maxSequences: 1 });
    const session = "chat";
    world.add("running", tokens(8), { maxTokens: 4 });
    world.add("waiting", tokens(12, 50), { maxTokens: 4, session, keep: FOR_EVER });
    await world.step();
    world.engine.endSession(session);
    await world.run();
    expect(world.engine.stats().kvBlocksKept).toBe(0);
    world.add("later", tokens(8, 90), { maxTokens: 4, session, keep: FOR_EVER });
    await world.run();
    expect(world.engine.stats().kvBlocksKept).toBe(2);
    world.engine.endSession(session);
    expect(world.engine.stats().kvBlocksKept).toBe(0);
  });

  it("leaves alone what somebody without a session keeps", async () => {
    const world = new EngineWorld(NO_END);
    world.add("a", tokens(8), { maxTokens: 12, session: "chat", keep: FOR_EVER });
    world.add("b", tokens(8), { maxTokens: 12, keep: FOR_EVER, sampling: withSeed(2) });
    for (let i = 0; i < 6; i++) await world.step();
    world.engine.endSession("chat");
    await world.run();
    expect(world.engine.stats().kvBlocksKept).toBe(2);
  });
});

describe("A session that goes on", () => {
  it("holds no sequences of its last turn, which have far more than their tokens", async () => {
    setFlagsFromString("--expose-gc");
    const collectGarbage = runInNewContext("gc") as () => void;
    const world = new SchedulerWorld({ numBlocks: 100 });
    const visit = () => {
      const sequences = world.add(tokens(20), { session: "chat", n: 1, bestOf: 2, maxTokens: 3 });
      for (let i = 0; i < 3; i++) world.step();
      expect(sequences.every(({ status }) => status === "finished")).toBe(true);
      return sequences.map((sequence) => new WeakRef(sequence));
    };
    const left = visit();
    await new Promise((resolve) => setTimeout(resolve));
    collectGarbage();
    expect(left.map((reference) => reference.deref())).toEqual([undefined, undefined]);
  });
});
