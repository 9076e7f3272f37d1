import { describe, expect, it } from "vitest";
import { GREEDY } from "./sampling.ts";
import type { Sequence } from "./sequence.ts";
import { SAMPLED_TOKEN } from "./step.ts";
import { positionsOf, rowsPerSlot, SchedulerWorld, tokens } from "./testing/schedulerWorld.ts";

describe("Scheduler: who runs", () => {
  it("has nothing to schedule without sequences", () => {
    expect(new SchedulerWorld().scheduler.schedule()).toBeUndefined();
  });

  it("schedules whole prompts in order of arrival when all fit", () => {
    const world = new SchedulerWorld();
    const sequences = [tokens(20), tokens(5, 100), tokens(9, 200)].map((one) => world.addOne(one));
    const { step, samples } = world.schedule();
    expect(rowsPerSlot(step)).toEqual({ 0: 20, 1: 5, 2: 9 });
    expect(samples.map(({ sequence }) => sequence)).toEqual(sequences);
    expect(world.running).toEqual(sequences);
    expect(step.samples).toEqual([
      { row: 19, slot: 0, position: 20 },
      { row: 24, slot: 1, position: 5 },
      { row: 33, slot: 2, position: 9 },
    ]);
  });

  it("computes a long prompt in chunks and samples only after the last", () => {
    const world = new SchedulerWorld({ maxRows: 16 });
    world.addOne(tokens(40));
    const steps = [world.step(), world.step(), world.step(), world.step()];
    expect(steps.map((step) => step.rows.length)).toEqual([16, 16, 8, 1]);
    expect(steps.map((step) => step.samples.length)).toEqual([0, 0, 1, 1]);
    expect(steps[1]?.rows[0]).toMatchObject({ position: 16, token: 16 });
    expect(steps[3]?.rows[0]).toMatchObject({ position: 40, token: SAMPLED_TOKEN });
  });

  it("gives every decoding sequence its row in every step, however long a prompt is computed", () => {
    const world = new SchedulerWorld({ maxRows: 20, numBlocks: 200 });
    const decoding = [0, 1, 2, 3].map((i) => world.addOne(tokens(4, 10 * i), { maxTokens: 100 }));
    world.step();
    const long = world.addOne(tokens(1000, 100));
    let numSteps = 0;
    while (long.numComputedTokens < 1000) {
      const step = world.step();
      for (const sequence of decoding) expect(positionsOf(step, sequence)).toHaveLength(1);
      expect(positionsOf(step, long).length).toBeGreaterThan(0);
      numSteps += 1;
    }
    expect(numSteps).toBe(Math.ceil(1000 / 16));
  });

  it("decodes with the steps of a pipeline too, and before their results", () => {
    const world = new SchedulerWorld({ maxRows: 20, numBlocks: 200 });
    const first = world.addOne(tokens(4));
    world.addOne(tokens(300, 100));
    const steps = Array.from({ length: 5 }, () => world.schedule());
    expect(steps.map(({ step }) => positionsOf(step, first))).toEqual([
      [0, 1, 2, 3],
      [4],
      [5],
      [6],
      [7],
    ]);
    for (const scheduled of steps) world.receive(scheduled);
    expect(first.tokens).toEqual([...tokens(4), 7, 7, 7, 7, 7]);
  });

  it("splits the rows fairly among prompts, the newcomers' included", () => {
    const world = new SchedulerWorld({ maxRows: 24, numBlocks: 100 });
    const long = world.addOne(tokens(100));
    expect(rowsPerSlot(world.step())).toEqual({ 0: 24 });
    const other = world.addOne(tokens(100, 200));
    const short = world.addOne(tokens(4, 400));
    const step = world.step();
    const counts = [long, other, short].map((sequence) => positionsOf(step, sequence).length);
    expect(counts).toEqual([10, 10, 4]);
    // What the short one no longer needs goes to the others; it decodes first.
    expect(rowsPerSlot(world.step())).toEqual({ 0: 11, 1: 12, 2: 1 });
  });

  it("gives three long prompts equal shares of every step until they are computed", () => {
    const world = new SchedulerWorld({ maxRows: 1024, numBlocks: 1000 });
    const prompts = [0, 1, 2].map((i) => world.addOne(tokens(800, 1000 * i)));
    const chunks = Array.from({ length: 3 }, () => {
      const { step } = world.schedule();
      return prompts.map((sequence) => positionsOf(step, sequence).length);
    });
    for (const [one, two, three] of chunks.slice(0, 2)) {
      expect(one! + two! + three!).toBe(1024);
      expect(Math.max(one!, two!, three!) - Math.min(one!, two!, three!)).toBeLessThanOrEqual(1);
    }
    expect(chunks[2]!.reduce((sum, count) => sum + count)).toBe(3 * 800 - 2 * 1024);
  });

  it("keeps sequences that find no slot waiting, and gives them slots that are freed", () => {
    const world = new SchedulerWorld({ maxSequences: 2, numBlocks: 100 });
    const sequences = Array.from({ length: 50 }, (_, i) => world.addOne([i]));
    const order: Sequence[] = [];
    while (world.outcomes.requests.size > 0) {
      expect(world.step().rows.every(({ slot }) => slot < 2)).toBe(true);
      for (const sequence of world.running) {
        order.push(sequence);
        world.finish(sequence, "length");
      }
    }
    expect(order).toEqual(sequences);
  });

  it("never has more residents than slots, nor than a step has rows, not even across resets", () => {
    const world = new SchedulerWorld({ maxRows: 3, maxSequences: 8 });
    for (let i = 0; i < 6; i++) world.addOne(tokens(4, 10 * i));
    for (let i = 0; i < 20; i++) {
      if (i % 5 === 4) world.scheduler.preemptAll("caller");
      const { rows, samples } = world.step();
      expect(rows.length).toBeLessThanOrEqual(3);
      expect(samples.length).toBeLessThanOrEqual(3);
      expect(world.running.length).toBeLessThanOrEqual(3);
    }
  });

  it("looks at a bounded part of the queue, however long it is", () => {
    const world = new SchedulerWorld({ maxSequences: 2, numBlocks: 100 });
    const sequences = Array.from({ length: 1000 }, (_, i) => world.addOne([i]));
    // Whoever looks at the sequences far back in the queue trips over them.
    for (const sequence of sequences.slice(40)) {
      Object.defineProperty(sequence, "numTokens", {
        get: () => {
          throw new Error("The whole queue was looked at.");
        },
      });
    }
    for (let i = 0; i < 3; i++) world.receive(world.schedule());
    world.scheduler.preempt(sequences[1]!, "caller");
    world.step();
    for (const i of [0, 500, 999]) world.finish(sequences[i]!, "abort");
    world.step();
    expect(world.running).toEqual([sequences[1], sequences[2]]);
  });

  it("does not read what waits again in every step, however much of it is cached, held or not", () => {
    const readsOf = (numBlocks: number, waitingOrder: "fcfs" | "longest-prefix") => {
      const world = new SchedulerWorld({ numBlocks: 2 * numBlocks + 40, waitingOrder });
      const shared = tokens(16 * numBlocks);
      const other = tokens(16 * numBlocks, 50_000);
      const holder = world.addOne([...shared, 1], { maxTokens: 400 });
      world.step();
      const left = world.addOne(other);
      world.step();
      world.finish(left); // its prefix stays, and nobody holds it
      let numReads = 0;
      // None of them fits.
      for (let i = 0; i < 8; i++) {
        const prefix = i % 2 === 0 ? shared : other;
        const prompt = [...prefix, ...tokens(16 * (numBlocks + 60), 100_000 * (i + 1))];
        const sequence = world.addOne(prompt);
        const counted = new Proxy(sequence.tokens, {
          get: (target, name) => {
            if (typeof name === "string" && /^\d+$/.test(name)) numReads += 1;
            return Reflect.get(target, name);
          },
        });
        Object.defineProperty(sequence, "tokens", { value: counted });
      }
      for (let i = 0; i < 3; i++) world.step();
      expect(numReads).toBeGreaterThan(8 * 16 * numBlocks); // once
      numReads = 0;
      // The holder fills blocks meanwhile, which are cached.
      for (let i = 0; i < 40; i++) world.step();
      expect(world.running).toEqual([holder]);
      return numReads;
    };
    for (const order of ["fcfs", "longest-prefix"] as const) {
      expect(readsOf(100, order)).toBeLessThan(40 * 8 * 64);
      expect(readsOf(100, order)).toBeLessThanOrEqual(readsOf(10, order));
    }
  });

  it("counts computed tokens when they are scheduled, so the next step needs no result of the last", () => {
    const world = new SchedulerWorld({ maxRows: 16 });
    const sequence = world.addOne(tokens(40));
    world.schedule();
    expect(sequence.numComputedTokens).toBe(16);
    expect(world.schedule().step.rows[0]?.position).toBe(16);
  });

  it("schedules no row behind the last token, whatever is in flight", () => {
    const world = new SchedulerWorld();
    const sequence = world.addOne(tokens(5), { maxTokens: 3 });
    const steps = [world.schedule(), world.schedule(), world.schedule()];
    expect(world.scheduler.schedule()).toBeUndefined();
    for (const scheduled of steps) world.receive(scheduled);
    expect(sequence).toMatchObject({ status: "finished", finishReason: "length" });
    expect(steps.map(({ step }) => step.rows.length)).toEqual([5, 1, 1]);
  });

  it("takes a result for void if its sequence has left its slot since, and the slot has another", () => {
    const world = new SchedulerWorld({ maxSequences: 1 });
    const first = world.addOne(tokens(5));
    const second = world.addOne(tokens(5, 50));
    const late = world.schedule();
    world.finish(first, "abort");
    const next = world.schedule();
    world.receive(late);
    expect(second.tokens).toHaveLength(5);
    world.receive(next);
    expect(second.tokens).toEqual([...tokens(5, 50), 7]);
    expect(first.tokens).toEqual(tokens(5));
  });
});

describe("Scheduler: what a step says", () => {
  it("sends the whole table on entering a slot and later only what was appended", () => {
    const world = new SchedulerWorld({ blockSize: 4 });
    world.addOne(tokens(7));
    const steps = Array.from({ length: 6 }, () => world.step());
    expect(steps.map((step) => step.blockTableEntries)).toEqual([
      [
        { slot: 0, index: 0, block: 0 },
        { slot: 0, index: 1, block: 1 },
      ],
      [],
      [{ slot: 0, index: 2, block: 2 }],
      [],
      [],
      [],
    ]);
    expect(steps.map((step) => step.slotResets.length)).toEqual([1, 0, 0, 0, 0, 0]);
    expect(steps.map((step) => step.rows.at(-1)?.kvSlot)).toEqual([6, 7, 8, 9, 10, 11]);
    expect(steps.map((step) => step.id)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("takes no block before the last one is full", () => {
    const world = new SchedulerWorld({ blockSize: 4 });
    const sequence = world.addOne(tokens(3));
    const sizes = Array.from({ length: 6 }, () => {
      world.step();
      return sequence.blockTable.length;
    });
    expect(sizes).toEqual([1, 1, 2, 2, 2, 2]);
  });

  it("sends an entry again when a shared block is replaced by the writer's own", () => {
    const world = new SchedulerWorld({ blockSize: 4 });
    world.add(tokens(6), { n: 2 });
    const first = world.step();
    expect(first.blockTableEntries).toEqual([
      { slot: 0, index: 0, block: 0 },
      { slot: 0, index: 1, block: 1 },
      { slot: 1, index: 0, block: 0 },
      { slot: 1, index: 1, block: 1 },
    ]);
    const second = world.step();
    expect(second.copies).toEqual([{ source: 1, target: 2 }]);
    expect(second.blockTableEntries).toEqual([{ slot: 0, index: 1, block: 2 }]);
  });

  it("sends tokens so far with a slot reset only where penalties need them", () => {
    const world = new SchedulerWorld();
    const sampling = { ...GREEDY, repetitionPenalty: 1.1 };
    world.addOne([1, 2, 3], { sampling });
    world.addOne([4, 5]);
    expect(world.step().slotResets).toEqual([
      { slot: 0, sampling, promptTokens: [1, 2, 3], outputTokens: [] },
      { slot: 1, sampling: GREEDY, promptTokens: [], outputTokens: [] },
    ]);
    world.scheduler.preemptAll("caller");
    expect(world.step().slotResets[0]).toMatchObject({
      promptTokens: [1, 2, 3],
      outputTokens: [7],
    });
  });

  it("spells a token out where the slot did not sample it last", () => {
    const world = new SchedulerWorld();
    world.addOne(tokens(3));
    expect(world.step().rows.map(({ token }) => token)).toEqual([0, 1, 2]);
    expect(world.step().rows.map(({ token }) => token)).toEqual([SAMPLED_TOKEN]);
    world.scheduler.preemptAll("caller");
    expect(world.step().rows.at(-1)?.token).toBe(7);
  });
});

describe("Scheduler: drafts", () => {
  const copying = [1, 2, 3, 4, 5, 1, 2, 3];

  it("are rows of the decoding step, each sampled, and count as computed until the result says else", () => {
    const world = new SchedulerWorld();
    const sequence = world.addOne(copying, { numSpeculativeTokens: 2 });
    expect(world.step(4).rows).toHaveLength(8);
    const scheduled = world.schedule();
    expect(scheduled.step.rows.map(({ token }) => token)).toEqual([4, 5, 1]);
    expect(scheduled.step.samples.map(({ row, position }) => [row, position])).toEqual([
      [0, 9],
      [1, 10],
      [2, 11],
    ]);
    expect(sequence.numComputedTokens).toBe(11);
    world.receive(scheduled, 5); // the first draft is right, the second is not
    expect(sequence.tokens.slice(8)).toEqual([4, 5, 5]);
    expect(sequence.numComputedTokens).toBe(10);
    expect(world.metrics.snapshot()).toMatchObject({
      spec_decode_num_draft_tokens: 2,
      spec_decode_num_accepted_tokens: 1,
    });
  });

  it("follow the last known token only: chunks of a prompt have none", () => {
    const world = new SchedulerWorld({ maxRows: 5 });
    world.addOne([...copying, ...copying, 4, 5], { numSpeculativeTokens: 4 });
    const steps = [world.step(), world.step(), world.step(), world.step(1), world.step()];
    expect(steps.map(({ rows }) => rows.length)).toEqual([5, 5, 5, 3, 5]);
    expect(steps.map(({ samples }) => samples.length)).toEqual([0, 0, 0, 1, 5]);
  });

  it("take only logits that nobody else needs", () => {
    const world = new SchedulerWorld({ maxSequences: 3 });
    world.addOne(tokens(3, 50));
    const copies = world.addOne(copying, { numSpeculativeTokens: 4 });
    world.step(4);
    const { step } = world.schedule();
    expect(positionsOf(step, copies)).toEqual([8, 9]); // three logits, two sequences: one draft
  });

  it("never go past maxTokens, and so not past the context", () => {
    const world = new SchedulerWorld();
    const copies = world.addOne(copying, { numSpeculativeTokens: 4, maxTokens: 4 });
    world.step(4);
    // Three more tokens may come: two drafts and the sample behind them.
    expect(positionsOf(world.schedule().step, copies)).toEqual([8, 9, 10]);
  });

  it("are left out where no block is free for them, rather than preempting anybody", () => {
    const world = new SchedulerWorld({ blockSize: 4, numBlocks: 4 });
    const copies = world.addOne(copying.slice(0, 7), { numSpeculativeTokens: 4, maxTokens: 9 });
    const other = world.addOne([50, 51], { maxTokens: 9 });
    world.addOne([60]);
    world.step(3);
    const step = world.step();
    expect(positionsOf(step, copies)).toEqual([7]);
    expect(positionsOf(step, other)).toEqual([2]);
    expect(world.scheduler.residents.numPreemptions).toBe(0);
  });

  it("behind a stop token are discarded with everything after it", () => {
    const world = new SchedulerWorld({ blockSize: 4 });
    const sequence = world.addOne(copying.slice(0, 7), {
      numSpeculativeTokens: 4,
      stopTokenIds: [9],
    });
    world.step(3);
    // The row of the last known token fills its block; the sample after it ends the sequence.
    const scheduled = world.schedule();
    expect(scheduled.step.rows.length).toBeGreaterThan(1);
    world.receive(scheduled, 9);
    expect(sequence).toMatchObject({ status: "finished", finishReason: "stop", stopToken: 9 });
    expect(sequence.tokens).toHaveLength(8);
    expect(world.numFree).toBe(10);
  });

  it("behind a stop token are discarded also where text repeats one token", () => {
    const world = new SchedulerWorld();
    const sequence = world.addOne([5, 5, 5, 5], { numSpeculativeTokens: 4, stopTokenIds: [9] });
    world.step(5);
    const scheduled = world.schedule();
    expect(scheduled.step.rows.map(({ token }) => token)).toEqual([5, 5]);
    world.receive(scheduled, [9, 8]);
    expect(sequence.tokens).toEqual([5, 5, 5, 5, 5]);
    expect(sequence).toMatchObject({ finishReason: "stop", stopToken: 9 });
  });

  it("hold their sequence until the result is there; others go on meanwhile", () => {
    const world = new SchedulerWorld();
    const copies = world.addOne(copying, { numSpeculativeTokens: 2 });
    const other = world.addOne([50, 51]);
    const first = world.schedule();
    const second = world.schedule();
    expect(positionsOf(second.step, copies)).toEqual([]);
    expect(positionsOf(second.step, other)).toEqual([2]);
    world.receive(first, 4);
    world.receive(second, 8);
    const third = world.schedule();
    expect(positionsOf(third.step, copies)).toEqual([8, 9, 10]);
    world.receive(third, 5);
  });
});
