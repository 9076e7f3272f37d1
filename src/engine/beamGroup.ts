import type { BeamCandidate, BeamMove, BeamSearch } from "./beamSearch.ts";
import type { Sequence } from "./sequence.ts";
import { commonLength } from "./tokenOrder.ts";

/** The beams of one request: they advance, wait and are preempted together. */
export class BeamGroup {
  readonly search: BeamSearch;
  /** Best first, in the order of the search. */
  readonly live: Sequence[] = [];
  /** What the step in flight said of each live beam; empty while none is. */
  readonly #candidates = new Map<Sequence, readonly BeamCandidate[]>();

  constructor(search: BeamSearch) {
    this.search = search;
  }

  /** Takes the best tokens after `beam`. The moves, once all live beams have theirs; undefined before. */
  receive(beam: Sequence, candidates: readonly BeamCandidate[]): readonly BeamMove[] | undefined {
    this.#candidates.set(beam, candidates);
    if (this.#candidates.size < this.live.length) return undefined;
    const all = this.live.map((sequence) => this.#candidates.get(sequence)!);
    this.#candidates.clear();
    return this.search.advance(all);
  }

  /** Forgets what came of a step whose other beams were preempted. */
  reset(): void {
    this.#candidates.clear();
  }

  /**
   * Moves the beams: the first child of a beam goes on as that very sequence, further ones are copies of
   * it, and beams without a child are dropped. The caller sees to blocks and slots: `copies` are to share
   * their parents' blocks before `dropped` ones give theirs back.
   */
  move(moves: readonly BeamMove[]): {
    readonly copies: readonly { readonly parent: Sequence; readonly child: Sequence }[];
    readonly dropped: readonly Sequence[];
  } {
    const parents = [...this.live];
    const used = new Set<Sequence>();
    const copies: { parent: Sequence; child: Sequence }[] = [];
    const next = moves.map((move) => {
      const parent = parents[move.parent]!;
      if (!used.has(parent)) {
        used.add(parent);
        return parent;
      }
      const child = parent.copy();
      copies.push({ parent, child });
      return child;
    });
    for (const [i, sequence] of next.entries()) sequence.tokens.push(moves[i]!.token);
    this.live.splice(0, this.live.length, ...next);
    return { copies, dropped: parents.filter((parent) => !used.has(parent)) };
  }

  /** Makes the first beam the trunk from which the others fork again when it is computed anew. */
  joinForResume(): Sequence {
    const [first, ...others] = this.live as [Sequence, ...Sequence[]];
    let common = first.tokens.length - 1; // each needs a row of its own
    for (const { tokens } of others) common = commonLength(tokens, first.tokens, 0, common);
    first.setForks(others, common);
    return first;
  }
}
