import { describe, expect, it } from "vitest";
import { BeamGroup } from "./beamGroup.ts";
import { BeamSearch } from "./beamSearch.ts";
import { KvCache } from "./kvCache.ts";
import { GREEDY } from "./sampling.ts";
import { Sequence, type SequenceOptions } from "./sequence.ts";
import { tokens } from "./testing/kvWorld.ts";
import { chooseVictim, comesBefore } from "./victim.ts";
import { AGING_MS } from "./waitingQueue.ts";

/** Running sequences whose prompts are computed. */
class World {
  readonly kvCache = new KvCache({ numBlocks: 40, blockSize: 4, now: () => 0 });
  readonly running: Sequence[] = [];

  add(promptTokens: readonly number[], fields: Partial<SequenceOptions> = {}): Sequence {
    const arrival = this.running.length;
    const sequence = new Sequence({
      requestId: arrival,
      index: 0,
      arrival,
      promptTokens,
      maxTokens: 10,
      stopTokens: new Set(),
      sampling: GREEDY,
      ...fields,
    });
    this.kvCache.beginStep(arrival + 1);
    this.kvCache.admit(sequence);
    sequence.numComputedTokens = promptTokens.length;
    this.kvCache.cacheFullBlocks(sequence);
    this.kvCache.takeCopies();
    this.running.push(sequence);
    return sequence;
  }

  get victim(): Sequence | undefined {
    return chooseVictim(this.running, this.kvCache);
  }
}

describe("chooseVictim", () => {
  it("takes whose loss is cheapest to make up, ties the latest", () => {
    const world = new World();
    world.add(tokens(4));
    const cheap = world.add(tokens(9, 100));
    world.add(tokens(12, 200));
    expect(world.victim).toBe(cheap);
    const later = world.add(tokens(9, 300));
    expect(world.victim).toBe(later);
  });

  it("does not count what others hold too", () => {
    const world = new World();
    world.add(tokens(24));
    const sharing = world.add([...tokens(20), ...tokens(4, 100)]); // 20 of 24 tokens are shared
    world.add(tokens(8, 200));
    expect(world.victim).toBe(sharing);
  });

  it("passes over whoever has no block to give", () => {
    const world = new World();
    world.add(tokens(4, 300));
    const parent = world.add(tokens(6));
    const child = world.add(tokens(6, 100));
    world.kvCache.release(child);
    world.kvCache.fork(parent, child);
    const dear = world.add(tokens(30, 200));
    expect(world.victim).toBe(dear);
  });

  it("takes the lowest priority first, whatever it costs", () => {
    const world = new World();
    world.add(tokens(4));
    world.add(tokens(4, 100));
    const low = world.add(tokens(30, 200), { priority: 1 });
    expect(world.victim).toBe(low);
  });

  it("spares the first in line as long as there is another", () => {
    const world = new World();
    const only = world.add(tokens(4), { arrivalMs: 10 });
    expect(world.victim).toBe(only);
    const second = world.add(tokens(30, 100), { arrivalMs: 20 });
    expect(world.victim).toBe(second);
    const first = world.add(tokens(4, 200), { arrivalMs: 5 });
    expect(world.victim).toBe(only);
    expect(first.arrival).toBeGreaterThan(only.arrival);
  });

  it("spares all beams of the first in line", () => {
    const world = new World();
    const params = { width: 2, lengthPenalty: 1, earlyStopping: true };
    const group = new BeamGroup(new BeamSearch(params, { maxTokens: 10, stopTokens: new Set() }));
    for (const beam of [world.add(tokens(4)), world.add(tokens(4, 100))]) {
      beam.beams = group;
      group.live.push(beam);
    }
    const other = world.add(tokens(30, 200));
    expect(world.victim).toBe(other);
  });

  it("takes the first if nobody else has anything to give, and nobody where nobody runs", () => {
    const world = new World();
    expect(world.victim).toBeUndefined();
    const parent = world.add(tokens(6));
    const child = world.add(tokens(6, 100));
    world.kvCache.release(child);
    world.kvCache.fork(parent, child);
    expect(world.victim).toBe(parent);
  });
});

describe("comesBefore", () => {
  it("goes by aged priority, then by arrival", () => {
    const world = new World();
    const early = world.add([1], { arrivalMs: 0 });
    const same = world.add([2], { arrivalMs: 0 });
    const late = world.add([3], { arrivalMs: 1 });
    const low = world.add([4], { arrivalMs: 0, priority: 1 });
    const lateHigh = world.add([5], { arrivalMs: AGING_MS + 1 });
    const order = [lateHigh, low, late, same, early].sort((a, b) => (comesBefore(a, b) ? -1 : 1));
    expect(order).toEqual([early, same, late, low, lateHigh]);
  });
});
