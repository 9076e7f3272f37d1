import type { KvCache } from "./kvCache.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Who must give its blocks back: the lowest priority first, then whose loss is cheapest to make up, that
 * is, with the fewest computed tokens in blocks that nobody else holds; ties go to the latest. Undefined
 * if nobody has a block to give.
 *
 * The first in line of all is spared as long as there is another, so that somebody always gets done:
 * whoever is preempted keeps its place and becomes the first in the end.
 */
export function chooseVictim(running: Iterable<Sequence>, kvCache: KvCache): Sequence | undefined {
  let first: Sequence | undefined;
  for (const sequence of running) {
    if (first === undefined || comesBefore(sequence, first)) first = sequence;
  }
  let victim: Sequence | undefined;
  let cost = 0;
  for (const sequence of running) {
    const isSpared =
      sequence === first || (first?.beams !== undefined && first.beams === sequence.beams);
    if (isSpared || kvCache.exclusiveBlocks(sequence) === 0) continue;
    const ownCost = kvCache.recomputeTokens(sequence);
    if (victim === undefined || isWorse(sequence, ownCost, victim, cost)) {
      victim = sequence;
      cost = ownCost;
    }
  }
  return victim ?? first;
}

function isWorse(sequence: Sequence, cost: number, victim: Sequence, victimCost: number): boolean {
  if (sequence.priority !== victim.priority) return sequence.priority > victim.priority;
  if (cost !== victimCost) return cost < victimCost;
  return comesBefore(victim, sequence);
}

/** Order of the queue: by key, then by arrival. */
export function comesBefore(a: Sequence, b: Sequence): boolean {
  return a.queueKey === b.queueKey ? a.arrival < b.arrival : a.queueKey < b.queueKey;
}
