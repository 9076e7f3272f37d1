import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AGING_MS, NOT_QUEUED, type Queued, queueKey, WaitingQueue } from "./waitingQueue.ts";

interface Member extends Queued {
  queueKey: number;
}

function createMember(arrival: number, key: number): Member {
  return { arrival, queueKey: key, heapIndex: NOT_QUEUED };
}

function inOrder(members: readonly Member[]): Member[] {
  return [...members].sort((a, b) => a.queueKey - b.queueKey || a.arrival - b.arrival);
}

/** mulberry32. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** A queue of random keys that counts how often they are read. */
function fillCounting(numMembers: number) {
  const random = createRandom(1);
  const reads = { count: 0 };
  const queue = new WaitingQueue<Queued>();
  const keys = Array.from({ length: numMembers }, () => random(2 ** 31));
  class CountingMember implements Queued {
    heapIndex = NOT_QUEUED;
    constructor(readonly arrival: number) {}
    get queueKey(): number {
      reads.count += 1;
      return keys[this.arrival]!;
    }
  }
  for (let arrival = 0; arrival < numMembers; arrival++) queue.push(new CountingMember(arrival));
  return { queue, keys, reads };
}

describe("queueKey", () => {
  it("is the order of arrival among equals, and lets a better priority go first", () => {
    expect(queueKey({ arrivalMs: 5, priority: 0 })).toBe(5);
    const key = (arrivalMs: number, priority: number) => queueKey({ arrivalMs, priority });
    expect(key(1_000, -1)).toBeLessThan(key(0, 0));
    expect(key(0, 1)).toBeGreaterThan(key(1_000, 0));
  });

  it("ages: a level of priority is made up for by AGING_MS of waiting", () => {
    const old = queueKey({ arrivalMs: 0, priority: 2 });
    expect(old).toBeGreaterThan(queueKey({ arrivalMs: 2 * AGING_MS - 1, priority: 0 }));
    expect(old).toBeLessThan(queueKey({ arrivalMs: 2 * AGING_MS + 1, priority: 0 }));
  });
});

describe("WaitingQueue", () => {
  it("behaves like a sorted array over random histories", () => {
    const operation = fc.oneof(
      { weight: 3, arbitrary: fc.record({ kind: fc.constant("push" as const), key: fc.nat(12) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("pop" as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("remove" as const), pick: fc.nat() }) },
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80, size: "max" }), (history) => {
        const queue = new WaitingQueue<Member>();
        let model: Member[] = [];
        for (const [arrival, step] of history.entries()) {
          if (step.kind === "push") {
            const member = createMember(arrival, step.key);
            queue.push(member);
            model = inOrder([...model, member]);
          } else if (model.length > 0) {
            const place = step.kind === "pop" ? 0 : step.pick % model.length;
            const [member] = model.splice(place, 1);
            queue.remove(member!);
            expect(member!.heapIndex).toBe(NOT_QUEUED);
            expect(queue.has(member!)).toBe(false);
          }
          queue.checkIntegrity();
          expect(queue.size).toBe(model.length);
          expect(queue.first).toBe(model[0]);
          expect([...queue.inOrder()]).toEqual(model);
          expect(model.every((member) => queue.has(member))).toBe(true);
        }
      }),
      { numRuns: 150 },
    );
  });

  it("goes by arrival where keys are equal, whatever the order of pushes", () => {
    const queue = new WaitingQueue<Member>();
    for (const arrival of [3, 0, 4, 1, 2]) queue.push(createMember(arrival, 7));
    expect([...queue.inOrder()].map(({ arrival }) => arrival)).toEqual([0, 1, 2, 3, 4]);
  });

  it("gives the first few in order without touching the rest", () => {
    const { queue, keys, reads } = fillCounting(50_000);
    reads.count = 0;
    const found: number[] = [];
    for (const { arrival } of queue.inOrder()) {
      if (found.push(keys[arrival]!) === 20) break;
    }
    expect(reads.count).toBeLessThan(20 * 30);
    expect(found).toEqual(keys.toSorted((a, b) => a - b).slice(0, 20));
    queue.checkIntegrity();
  });

  it("pushes and pops 100,000 members with O(log n) comparisons each", () => {
    const numMembers = 100_000;
    const { queue, keys, reads } = fillCounting(numMembers);
    expect(reads.count / numMembers).toBeLessThan(10); // random keys rise a level or two
    reads.count = 0;
    let last = Number.NEGATIVE_INFINITY;
    let isSorted = true;
    for (let { first } = queue; first !== undefined; { first } = queue) {
      queue.remove(first);
      isSorted &&= keys[first.arrival]! >= last;
      last = keys[first.arrival]!;
    }
    // Two comparisons a level, each of two keys, and twice that where keys are equal.
    expect(reads.count / numMembers).toBeLessThan(4 * Math.log2(numMembers) + 8);
    expect(isSorted).toBe(true);
  });

  it("refuses what is queued already and what is not", () => {
    const queue = new WaitingQueue<Member>();
    const member = createMember(0, 0);
    expect(() => queue.remove(member)).toThrow(/lacks it/);
    queue.push(member);
    expect(() => queue.push(member)).toThrow(/queued twice/);
    const other = { ...createMember(1, 1), heapIndex: 0 };
    expect(() => queue.remove(other)).toThrow(/lacks it/);
    expect(queue.has(other)).toBe(false);
  });

  it("refuses to go on iterating after a change", () => {
    const queue = new WaitingQueue<Member>();
    for (let i = 0; i < 3; i++) queue.push(createMember(i, i));
    const iterator = queue.inOrder();
    queue.remove(iterator.next().value!);
    expect(() => iterator.next()).toThrow(/changed while it was iterated/);
  });

  it("notices members that lost their place or their order", () => {
    const queue = new WaitingQueue<Member>();
    const members = [0, 1, 2, 3, 4].map((i) => createMember(i, i));
    for (const member of members) queue.push(member);
    members[4]!.heapIndex = 1;
    expect(() => queue.checkIntegrity()).toThrow(/believes to be at 1/);
    members[4]!.heapIndex = 4;
    queue.checkIntegrity();
    members[4]!.queueKey = -1;
    expect(() => queue.checkIntegrity()).toThrow(/comes later/);
  });
});
