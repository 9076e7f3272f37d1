import type { Random } from "./random.ts";

/**
 * How often a beam is displaced. Fitted so that two beams of the Alpaca-like load save what the paper
 * measured with two, 37.56 %; what four and six save is then predicted.
 */
export const BEAM_SWITCH_RATE = 0.117;

/**
 * Draws which beam each beam of a step goes on from. The paper's data say how long answers were, not which
 * hypotheses a model would have followed, so a model of ancestry stands in for it. Beams are ranked. From
 * the second rank down, each is displaced with probability `switchRate` by another continuation of the beam
 * right above it; the first that is displaced is the step's only one.
 */
export class BeamParents {
  /** Entry i is the beam that beam i goes on from; i itself if it goes on as it is. */
  readonly parents: number[] = [];
  readonly #random: Random;
  readonly #switchRate: number;

  constructor(random: Random, switchRate = BEAM_SWITCH_RATE) {
    this.#random = random;
    this.#switchRate = switchRate;
  }

  /** Draws `parents` for a step of `width` beams. Returns how many are displaced: 0 or 1. */
  draw(width: number): number {
    const { parents } = this;
    parents.length = 0;
    let displaced = 0;
    for (let rank = 0; rank < width; rank++) {
      const isDisplaced = rank > 0 && displaced === 0 && this.#random.uniform() < this.#switchRate;
      if (isDisplaced) displaced = 1;
      parents.push(isDisplaced ? rank - 1 : rank);
    }
    return displaced;
  }
}
