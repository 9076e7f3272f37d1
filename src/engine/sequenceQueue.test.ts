import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GREEDY } from "./sampling.ts";
import { Sequence } from "./sequence.ts";
import { SequenceQueue } from "./sequenceQueue.ts";

function createSequence(arrival: number): Sequence {
  return new Sequence({
    requestId: arrival,
    index: 0,
    arrival,
    promptTokens: [1],
    maxTokens: 1,
    stopTokens: new Set(),
    sampling: GREEDY,
  });
}

describe("SequenceQueue", () => {
  it("behaves like an array over random histories", () => {
    const operation = fc.record({ kind: fc.nat(1), pick: fc.nat() });
    fc.assert(
      fc.property(fc.array(operation), (history) => {
        const queue = new SequenceQueue();
        const model: Sequence[] = [];
        for (const [i, { kind, pick }] of history.entries()) {
          if (kind === 0) {
            const sequence = createSequence(i);
            queue.pushBack(sequence);
            model.push(sequence);
          } else if (model.length > 0) {
            const [sequence] = model.splice(pick % model.length, 1);
            queue.remove(sequence!);
            expect([sequence!.previous, sequence!.next]).toEqual([undefined, undefined]);
          }
          expect([...queue].map((s) => s.arrival)).toEqual(model.map((s) => s.arrival));
          expect(queue.size).toBe(model.length);
          expect(queue.first).toBe(model[0]);
          expect(queue.last).toBe(model.at(-1));
        }
      }),
    );
  });
});
