import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DEFAULT_EVENT_CAPACITY, type EngineEvent, EventLog } from "./eventLog.ts";

function evict(stepId: number): EngineEvent {
  return { kind: "evict", timeMs: stepId, stepId, block: stepId, tokens: 16 };
}

function stall(stepId: number): EngineEvent {
  const who = { requestId: "a", index: 0 };
  return { kind: "stall", timeMs: stepId, stepId, ...who, waitedMs: 9, why: "No block is free." };
}

describe("EventLog", () => {
  it("keeps the latest events in order and counts the others", () => {
    const history = fc.record({
      capacity: fc.integer({ min: 1, max: 9 }),
      kinds: fc.array(fc.nat(1)),
    });
    fc.assert(
      fc.property(history, ({ capacity, kinds }) => {
        const log = new EventLog({ capacity });
        const all: EngineEvent[] = [];
        for (const [i, kind] of kinds.entries()) {
          const event = kind === 0 ? evict(i) : stall(i);
          log.push(event);
          all.push(event);
          const kept = all.slice(-capacity);
          const lost = all.slice(0, -capacity);
          const count = (events: readonly EngineEvent[], name: string) =>
            events.filter((other) => other.kind === name).length;
          expect([...log]).toEqual(kept);
          expect(log.size).toBe(kept.length);
          for (const name of ["evict", "stall", "preempt"] as const) {
            expect(log.counts[name]).toBe(count(all, name));
            expect(log.dropped[name]).toBe(count(lost, name));
          }
        }
      }),
    );
  });

  it("is bounded by default", () => {
    const log = new EventLog();
    for (let i = 0; i < DEFAULT_EVENT_CAPACITY + 5; i++) log.push(evict(i));
    expect(log.size).toBe(DEFAULT_EVENT_CAPACITY);
    expect(log.dropped.evict).toBe(5);
    expect([...log][0]).toEqual(evict(5));
  });
});
