import { describe, expect, it, vi } from "vitest";
import { QuireError } from "../errors.ts";
import type { Step } from "./step.ts";
import { EngineWorld, tokens, withSeed } from "./testing/engineWorld.ts";
import { TimedExecutor } from "./testing/timedExecutor.ts";

/** Rows cost, and moves are free: whoever must go is swapped out. */
const TIMING = { stepMs: (step: Step) => 5 + 2 * step.rows.length, latencyMs: 0 };

const NO_MEMORY = new QuireError("out-of-memory", "There is no memory for 3 blocks.");

/**
 * Five requests over a pool for two or three; steps that `lacks` says of have no host memory. `early`:
 * the back end notices before it runs such a step, else when its rows are computed already.
 */
function crowd(
  lacks: (step: Step) => boolean,
  early: boolean,
  sizes: ConstructorParameters<typeof EngineWorld>[0] = {},
): EngineWorld {
  const world = new EngineWorld({
    endTokens: new Set(),
    numBlocks: 32,
    numHostBlocks: 64,
    timing: TIMING,
    ...sizes,
  });
  const { executor } = world;
  const submit = executor.submit.bind(executor);
  vi.spyOn(executor, "submit").mockImplementation((step) => {
    if (lacks(step)) executor.failure = { error: NO_MEMORY, early };
    return submit(step);
  });
  for (let i = 0; i < 5; i++) {
    world.add(i, tokens(18, 10 * i), { maxTokens: 50, sampling: withSeed(i) });
  }
  return world;
}

function isSwapping({ swapOuts, swapIns }: Step): boolean {
  return swapOuts.length + swapIns.length > 0;
}

function swapsOff(world: EngineWorld) {
  return world.engine.events().filter(({ kind }) => kind === "swap-off");
}

describe("Engine: no host memory for a swap", () => {
  it.each([
    [true, 1],
    [false, 1],
    [true, 3],
    [false, 3],
  ])(
    "ends swapping and nothing else (early: %s, steps in flight: %i)",
    async (early, maxStepsInFlight) => {
      const latency = { ...TIMING, latencyMs: 20 };
      const world = crowd(isSwapping, early, { maxStepsInFlight, timing: latency });
      await world.run();
      world.checkDelivered();
      for (const { tokens: said } of world.received.values()) expect(said).toHaveLength(50);
      expect(world.executor.mostInFlight > 1).toBe(maxStepsInFlight > 1);
      const swapping = world.executor.steps.filter(isSwapping);
      // Later ones were in flight when the first failed.
      expect(swapping.length).toBeLessThanOrEqual(maxStepsInFlight);
      expect(swapsOff(world)).toMatchObject([{ stepId: swapping[0]!.id, why: NO_MEMORY.message }]);
      expect(world.engine.events().findLast(({ kind }) => kind === "preempt")).toMatchObject({
        how: "recompute",
        reason: "blocks",
      });
      expect(world.engine.stats()).toMatchObject({ running: 0, waiting: 0, swapped: 0 });
    },
  );

  it.each([true, false])("keeps what is swapped out already (early: %s)", async (early) => {
    let numSwaps = 0;
    const world = crowd(({ swapOuts }) => swapOuts.length > 0 && ++numSwaps > 2, early);
    while (world.engine.hasWork && swapsOff(world).length === 0) await world.step();
    expect(world.engine.stats()).toMatchObject({ running: 0, kvBlocksUsed: 0, kvBlocksCached: 0 });
    const { swapped } = world.engine.stats();
    expect(swapped).toBeGreaterThan(0);
    const numSteps = world.executor.steps.length;
    await world.run();
    world.checkDelivered();
    const later = world.executor.steps.slice(numSteps);
    const { stepId: lastId } = swapsOff(world)[0]!;
    const back = world.engine.events().filter((event) => event.stepId > lastId);
    expect(back.filter(({ kind }) => kind === "swap-in")).toHaveLength(swapped);
    expect(later.filter(({ swapOuts }) => swapOuts.length > 0)).toEqual([]);
    expect(world.engine.stats().swapped).toBe(0);
  });

  it("comes to an end where nothing can be swapped in either", async () => {
    let isFull = false;
    const world = crowd((step) => {
      if (step.swapIns.length > 0) isFull = true;
      return isFull && isSwapping(step);
    }, false);
    await world.run();
    world.checkDelivered();
    expect(isFull).toBe(true);
  });

  it.each([true, false])(
    "waits for the steps in flight before it submits others (early: %s)",
    async (early) => {
      let isCrowded = false;
      const lacks = ({ swapOuts }: Step) => isCrowded && swapOuts.length > 0;
      const world = crowd(lacks, early, { maxStepsInFlight: 2 });
      const timed = new TimedExecutor(world.executor, { ...TIMING, latencyMs: 20 }, world);
      let numInFlight = 0;
      let mostInFlight = 0;
      world.engine.replaceExecutor({
        maxStepsInFlight: 2,
        submit: (step) => {
          const { result } = timed.submit(step);
          mostInFlight = Math.max(mostInFlight, ++numInFlight);
          return { result: result.finally(() => numInFlight--) };
        },
      });
      while (world.engine.hasWork && world.engine.stats().stepsInFlight < 2) await world.step();
      isCrowded = true;
      await world.run();
      world.checkDelivered();
      expect(swapsOff(world)).toHaveLength(1);
      expect(mostInFlight).toBe(2);
    },
  );

  it("fails a step that swaps nothing, as any other error does", async () => {
    const world = crowd(() => false, true);
    world.executor.failure = { error: NO_MEMORY, early: true };
    await expect(world.engine.step()).rejects.toBe(NO_MEMORY);
    expect(swapsOff(world)).toEqual([]);
    await world.run();
    expect(world.engine.stats().swaps).toBeGreaterThan(0);
    world.checkDelivered();
  });

  it("is no matter when the back end is replaced meanwhile", async () => {
    const world = crowd(isSwapping, false, { maxStepsInFlight: 3 });
    const lost = world.executor;
    lost.onFlight = () => {
      if (!lost.hasFailed) return;
      lost.onFlight = undefined;
      world.replaceExecutor();
    };
    await world.run();
    world.checkDelivered();
    expect(world.executor).not.toBe(lost);
    expect(swapsOff(world)).toEqual([]);
  });
});
