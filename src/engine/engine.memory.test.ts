import { describe, expect, it } from "vitest";
import type { EngineEvent } from "./eventLog.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";

const NO_END = { endTokens: new Set<number>() };

function preemptions(world: EngineWorld) {
  return world.engine.events().filter((event) => event.kind === "preempt");
}

/** Milliseconds of a step of a device that needs so many to move a block. */
function moveMs(perBlock: number) {
  return (step: {
    rows: readonly unknown[];
    swapOuts: readonly unknown[];
    swapIns: readonly unknown[];
  }) => 5 + 2 * step.rows.length + perBlock * (step.swapOuts.length + step.swapIns.length);
}

/** Five requests over a pool for two or three of them. */
async function runCrowded(sizes: ConstructorParameters<typeof EngineWorld>[0]) {
  const timing = { stepMs: moveMs(0), latencyMs: 0 };
  const world = new EngineWorld({ ...NO_END, numBlocks: 32, timing, ...sizes });
  for (let i = 0; i < 5; i++) {
    const penalties = i === 3 ? { presencePenalty: 0.4 } : {};
    const prompt = [...tokens(12, 50), ...tokens(6, 10 * i)];
    world.add(i, prompt, { maxTokens: 50, sampling: withSeed(i, penalties) });
  }
  await world.run();
  world.checkDelivered();
  for (const { tokens: delivered } of world.received.values()) expect(delivered).toHaveLength(50);
  expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
  return world;
}

describe("Engine: swapping", () => {
  it("gives the same tokens whether victims are swapped or computed again", async () => {
    const recomputed = await runCrowded({ numHostBlocks: 0 });
    const swapped = await runCrowded({ numHostBlocks: 64 });
    expect(recomputed.engine.stats()).toMatchObject({ swaps: 0 });
    expect(recomputed.engine.stats().tokensLost).toBeGreaterThan(50);
    expect(swapped.engine.stats().swaps).toBeGreaterThan(3);
    expect(swapped.engine.stats().tokensLost).toBeLessThan(recomputed.engine.stats().tokensLost);
    for (const [key, { tokens: delivered }] of swapped.received) {
      expect(delivered).toEqual(recomputed.received.get(key)?.tokens);
    }
  });

  it("keeps within the host's blocks: who finds no room there is computed again", async () => {
    const world = await runCrowded({ numHostBlocks: 8 });
    const how = preemptions(world).map((event) => "how" in event && event.how);
    expect(new Set(how)).toEqual(new Set(["swap", "recompute"]));
    for (const { swapOuts, swapIns } of world.executor.steps) {
      for (const { hostBlock } of [...swapOuts, ...swapIns]) expect(hostBlock).toBeLessThan(8);
    }
  });

  it("swaps nothing back in in the step that swaps it out, nor before that step's result", async () => {
    const timing = { stepMs: moveMs(0), latencyMs: 20 };
    const world = await runCrowded({ numHostBlocks: 64, maxStepsInFlight: 3, timing });
    expect(world.executor.mostInFlight).toBeGreaterThan(1);
    const outAt = new Map<number, number>();
    let numIns = 0;
    for (const { id, swapOuts, swapIns } of world.executor.steps) {
      for (const { hostBlock } of swapIns) {
        expect(outAt.get(hostBlock)).toBeLessThan(id);
        numIns += 1;
      }
      for (const { hostBlock } of swapOuts) outAt.set(hostBlock, id);
    }
    expect(numIns).toBeGreaterThan(5);
  });

  it("has the back end give up what nobody will swap in any more, with the next step", async () => {
    const timing = { stepMs: moveMs(0), latencyMs: 0 };
    const world = new EngineWorld({ ...NO_END, numBlocks: 32, numHostBlocks: 64, timing });
    for (let i = 0; i < 5; i++) {
      world.add(i, tokens(18, 10 * i), { maxTokens: 50, sampling: withSeed(i) });
    }
    while (world.engine.stats().swapped < 2) await world.step();
    const held = world.executor.numHostBlocks;
    const swapped = world.engine
      .events()
      .flatMap((event) => (event.kind === "preempt" && event.how === "swap" ? [event] : []));
    const { requestId, blocksFreed } = swapped.at(-1)!;
    world.abort(requestId);
    await world.step();
    expect(world.executor.steps.at(-1)!.hostReleases.length).toBeGreaterThanOrEqual(
      blocksFreed - 1,
    );
    expect(world.executor.numHostBlocks).toBeLessThanOrEqual(held - blocksFreed + 1);
    await world.run();
    world.checkDelivered();
    // What came back in part, because the rest was in the prefix cache still, is given up too.
    world.add("last", tokens(4), { maxTokens: 1 });
    await world.run();
    expect(world.executor.numHostBlocks).toBe(0);
  });

  it("is given up where blocks cost more to move than to compute again", async () => {
    const cheap = await runCrowded({ numHostBlocks: 64 });
    expect(cheap.engine.stats().swaps).toBeGreaterThan(3);
    const timing = { stepMs: moveMs(500), latencyMs: 0 };
    const dear = await runCrowded({ numHostBlocks: 64, timing });
    // The first moves show the cost, and there are none after them.
    expect(dear.engine.stats().swaps).toBeLessThan(cheap.engine.stats().swaps);
    const how = preemptions(dear).map((event) => "how" in event && event.how);
    expect(how.at(-1)).toBe("recompute");
  });

  it("loses what the host holds with the back end, and computes it again", async () => {
    const timing = { stepMs: moveMs(0), latencyMs: 0 };
    const world = new EngineWorld({ ...NO_END, numBlocks: 32, numHostBlocks: 64, timing });
    for (let i = 0; i < 5; i++) {
      world.add(i, tokens(18, 10 * i), { maxTokens: 50, sampling: withSeed(i) });
    }
    for (let i = 0; i < 60 && world.engine.stats().swapped === 0; i++) await world.step();
    expect(world.engine.stats().swapped).toBeGreaterThan(0);
    world.replaceExecutor();
    expect(world.engine.stats()).toMatchObject({ swapped: 0, running: 0, waiting: 5 });
    await world.run();
    world.checkDelivered();
  });
});

describe("Engine: prefixes of others", () => {
  it("are found within a salt only", async () => {
    const world = new EngineWorld();
    const found: number[] = [];
    for (const [i, cacheSalt] of ["a", "b", "a", "b", undefined, ""].entries()) {
      world.add(i, tokens(20), cacheSalt === undefined ? {} : { cacheSalt });
      await world.run();
      found.push(world.of(i).cachedTokens);
    }
    expect(found).toEqual([0, 0, 19, 19, 0, 19]);
    world.checkDelivered();
  });

  it("are found within an adapter only", async () => {
    const world = new EngineWorld();
    const found: number[] = [];
    for (const [i, adapterId] of [null, "x", "y", "x"].entries()) {
      world.add(i, tokens(20), { adapterId });
      await world.run();
      found.push(world.of(i).cachedTokens);
    }
    expect(found).toEqual([0, 0, 0, 19]);
  });

  it("are found in the same step, up to the last full block, whatever the order of arrival", async () => {
    const world = new EngineWorld({ ...NO_END, maxRows: 64 });
    world.add("warm", tokens(32, 60), { maxTokens: 1 }); // teaches the budget that steps may be long
    await world.run();
    for (const id of ["a", "b", "c"]) world.add(id, tokens(15), { sampling: withSeed(id.length) });
    await world.step();
    expect(world.executor.steps.at(-1)?.rows).toHaveLength(15 + 3 + 3);
    await world.run();
    world.checkDelivered();
  });
});

describe("Engine: what is kept", () => {
  /** Fills the pool with other prompts. */
  async function flood(world: EngineWorld, name: string): Promise<void> {
    for (let i = 0; i < 6; i++) {
      world.add(`${name} ${i}`, tokens(40, 100 + 50 * i), { maxTokens: 1 });
      await world.run();
    }
  }

  const SMALL = { ...NO_END, numBlocks: 30 };

  async function cachedAfterFlood(
    fields: Parameters<EngineWorld["add"]>[2],
    prepare: (world: EngineWorld) => void = () => {},
  ): Promise<number> {
    const world = new EngineWorld(SMALL);
    world.add("first", tokens(40), { maxTokens: 2, ...fields });
    await world.run();
    prepare(world);
    await flood(world, "other");
    world.add("again", tokens(40), { maxTokens: 2 });
    await world.run();
    world.checkDelivered();
    return world.of("again").cachedTokens;
  }

  it("survives what would evict it, and only then", async () => {
    expect(await cachedAfterFlood({})).toBe(0);
    expect(await cachedAfterFlood({ keep: { ttlMs: Number.POSITIVE_INFINITY } })).toBe(39);
  });

  it("lapses with its time, with its session, and with a reset", async () => {
    expect(await cachedAfterFlood({ keep: { ttlMs: 10 } }, (world) => (world.clockMs += 20))).toBe(
      0,
    );
    const keep = { ttlMs: Number.POSITIVE_INFINITY };
    const fields = { keep, session: "chat" };
    expect(await cachedAfterFlood(fields)).toBe(39);
    expect(await cachedAfterFlood(fields, ({ engine }) => engine.endSession("chat"))).toBe(0);
    const reset = ({ engine }: EngineWorld) => expect(engine.resetPrefixCache()).toBe(true);
    expect(await cachedAfterFlood({ keep }, reset)).toBe(0);
  });

  it("of an edited turn goes first: the branch that nobody continues", async () => {
    const kept = async (session: string | undefined) => {
      const world = new EngineWorld({ ...NO_END, numBlocks: 30 });
      const add = (id: string, prompt: number[]) =>
        world.add(id, prompt, { maxTokens: 1, ...(session && { session }) });
      world.add("stranger", tokens(32, 200), { maxTokens: 1 });
      await world.run();
      add("question", tokens(32));
      await world.run();
      add("edited", [...tokens(8), ...tokens(24, 60)]);
      await world.run();
      // Room for this is made of what is worth least.
      world.add("large", tokens(40, 300), { maxTokens: 1 });
      await world.run();
      world.add("again", tokens(32, 200), { maxTokens: 1 });
      await world.run();
      return world.of("again").cachedTokens;
    };
    expect(await kept("chat")).toBe(31);
    expect(await kept(undefined)).toBeLessThan(31);
  });
});

describe("Engine: nothing is left", () => {
  it("of requests that ended in every way there is", async () => {
    const world = new EngineWorld({ numBlocks: 40, numHostBlocks: 8, maxSequences: 4 });
    const beam = { width: 2, lengthPenalty: 1, earlyStopping: true };
    const greedy = withSeed(0, { temperature: 0 });
    for (let i = 0; i < 60; i++) {
      const kinds = [
        {},
        { n: 3 },
        { n: 1, bestOf: 3 },
        { sampling: greedy, beam },
        { numSpeculativeTokens: 4 },
        { deadlineMs: 40 },
      ];
      world.add(i, tokens(1 + ((7 * i) % 40), 3 * i), { maxTokens: 1 + (i % 30), ...kinds[i % 6] });
      await world.step();
      if (i % 5 === 4) world.abort(i - 3);
      if (i % 11 === 10) world.replaceExecutor();
    }
    await world.run();
    world.checkDelivered();
    expect(world.engine.stats()).toMatchObject({
      running: 0,
      waiting: 0,
      swapped: 0,
      kvBlocksUsed: 0,
      stalled: [],
    });
    expect(world.engine.kvUsage()).toMatchObject({ blocksUsed: 0, logicalTokens: 0 });
    expect(world.engine.resetPrefixCache()).toBe(true);
    expect(world.engine.stats().kvBlocksCached).toBe(0);
  });
});

describe("Engine: events", () => {
  it("tell what was decided: preemptions with reason and cost, evictions, swaps", async () => {
    const world = await runCrowded({ numHostBlocks: 8 });
    const byKind = new Map<EngineEvent["kind"], EngineEvent[]>();
    for (const event of world.engine.events()) {
      byKind.set(event.kind, [...(byKind.get(event.kind) ?? []), event]);
    }
    const { preemptions: count, swaps } = world.engine.stats();
    expect(byKind.get("preempt")).toHaveLength(count);
    expect(byKind.get("swap-in")).toHaveLength(swaps);
    expect(byKind.get("evict")?.length).toBeGreaterThan(0);
    for (const event of byKind.get("preempt")!) {
      if (event.kind !== "preempt") continue;
      expect(event.reason).toBe("blocks");
      expect(event.kvUsageAfter).toBeLessThan(event.kvUsageBefore);
      if (event.how === "swap") expect(event.tokensLost).toBe(0);
      else expect(event.tokensLost).toBeGreaterThan(0);
    }
    const times = world.engine.events().map(({ timeMs }) => timeMs);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(world.engine.stats().metrics).toMatchObject({
      num_preemptions: count,
      num_swaps: swaps,
    });
  });
});
