import { invariant } from "../errors.ts";
import type { BeamSearchParams } from "./engineRequest.ts";
import type { FinishReason } from "./sequence.ts";

/** A token that may follow a beam, with its log-probability (natural, of the raw logits' softmax). */
export interface BeamCandidate {
  readonly token: number;
  readonly logprob: number;
}

/** How a live beam came about: a live beam of before, and the token that follows it. */
export interface BeamMove {
  /** Index among the live beams before; 0 in the first step, where the prompt stands for them. */
  readonly parent: number;
  readonly token: number;
  /** Sum of the log-probabilities of all output tokens. */
  readonly cumulativeLogprob: number;
}

/** A finished hypothesis. */
export interface BeamHypothesis {
  /** Output tokens without the stop token. */
  readonly tokens: readonly number[];
  /** Sum of the log-probabilities of the output tokens, the stop token's included. */
  readonly cumulativeLogprob: number;
  readonly score: number;
  /** "stop", "length", or what `end` was given. */
  readonly finishReason: FinishReason;
  /** The token that ended it, if one did. */
  readonly stopToken?: number;
}

/** A beam, as the last token of a path: beams that fork share what is before. */
interface Beam {
  readonly parent: Beam | undefined;
  readonly token: number;
  readonly cumulativeLogprob: number;
}

interface RankedMove extends BeamMove {
  readonly beam: Beam | undefined;
}

interface Finished {
  /** Its last token is the stop token, if `finishReason` is "stop". */
  readonly beam: Beam;
  readonly score: number;
  readonly finishReason: FinishReason;
}

/**
 * One beam search, without model or memory: it is told what may follow each live beam, and says which
 * beams live on.
 *
 * The rules are Hugging Face's (`BeamSearchScorer` and `_beam_search` of `generate`). A step ranks the
 * candidates of all live beams by cumulative log-probability, ties to the lower parent, then to the lower
 * token. Stop tokens among the first `width` ranks end their hypotheses, later ones are ignored, and the
 * best `width` others live on. The score of a hypothesis is its cumulative log-probability, divided by
 * length ** lengthPenalty, where the length counts output tokens and the stop token, not the prompt.
 * (vLLM's counts the prompt and not the stop token, which weakens the penalty after long prompts.)
 * The best `width` finished hypotheses are kept, ties to the earlier one.
 *
 * The `2 * width` best candidates of a beam suffice, as long as no more than `width` of them are stop
 * tokens; with more, fewer than `width` beams may live on.
 */
export class BeamSearch {
  readonly width: number;
  readonly #lengthPenalty: number;
  readonly #earlyStopping: boolean | "never";
  readonly #maxTokens: number;
  readonly #stopTokens: ReadonlySet<number>;
  /** Best first; `undefined` is the prompt. */
  #live: readonly (Beam | undefined)[] = [undefined];
  /** At most `width`, best first. */
  readonly #finished: Finished[] = [];
  /** Output tokens of each live beam. */
  #length = 0;

  constructor(
    params: BeamSearchParams,
    options: { readonly maxTokens: number; readonly stopTokens: ReadonlySet<number> },
  ) {
    this.width = params.width;
    this.#lengthPenalty = params.lengthPenalty;
    this.#earlyStopping = params.earlyStopping;
    this.#maxTokens = options.maxTokens;
    this.#stopTokens = options.stopTokens;
  }

  /** Beams that the next step must extend: 1 (the prompt) before the first, 0 when done. */
  get numLive(): number {
    return this.#live.length;
  }

  get isDone(): boolean {
    return this.#live.length === 0;
  }

  /**
   * A step: for each live beam, in order, the best tokens that may follow it; in the first, for the prompt. Returns the beams that live
   * on, best first; none if the search is done.
   */
  advance(candidatesPerBeam: readonly (readonly BeamCandidate[])[]): BeamMove[] {
    invariant(
      candidatesPerBeam.length === this.#live.length && !this.isDone,
      `A beam search with ${this.#live.length} live beams got candidates for ${candidatesPerBeam.length}.`,
    );
    this.#length += 1;
    const moves: RankedMove[] = [];
    for (const [rank, move] of this.#rank(candidatesPerBeam).entries()) {
      if (!this.#stopTokens.has(move.token)) {
        if (moves.push(move) === this.width) break;
      } else if (rank < this.width) {
        this.#finish(extend(move), "stop");
      }
    }
    this.#live = moves.map(extend);
    if (this.#length >= this.#maxTokens) this.end("length");
    else if (this.#cannotImprove()) this.#live = [];
    if (this.isDone) return [];
    return moves.map(({ parent, token, cumulativeLogprob }) => ({
      parent,
      token,
      cumulativeLogprob,
    }));
  }

  /** Ends the search: live beams become finished hypotheses as they are. */
  end(reason: Exclude<FinishReason, "stop">): void {
    for (const beam of this.#live) if (beam !== undefined) this.#finish(beam, reason);
    this.#live = [];
  }

  /** The `n` best finished hypotheses, or as many as there are, best first. */
  hypotheses(n: number): BeamHypothesis[] {
    return this.#finished.slice(0, n).map(({ beam, score, finishReason }) => {
      const stopped = finishReason === "stop";
      const tokens = tokensOf(stopped ? beam.parent : beam);
      const { cumulativeLogprob } = beam;
      const hypothesis = { tokens, cumulativeLogprob, score, finishReason };
      return stopped ? { ...hypothesis, stopToken: beam.token } : hypothesis;
    });
  }

  #rank(candidatesPerBeam: readonly (readonly BeamCandidate[])[]): RankedMove[] {
    const moves: RankedMove[] = [];
    for (const [parent, candidates] of candidatesPerBeam.entries()) {
      const beam = this.#live[parent];
      const before = beam?.cumulativeLogprob ?? 0;
      for (const { token, logprob } of candidates) {
        moves.push({ parent, token, cumulativeLogprob: before + logprob, beam });
      }
    }
    return moves.sort(
      (a, b) =>
        b.cumulativeLogprob - a.cumulativeLogprob || a.parent - b.parent || a.token - b.token,
    );
  }

  #finish(beam: Beam, finishReason: FinishReason): void {
    const score = this.#score(beam, this.#length);
    const place = this.#finished.findIndex((other) => other.score < score);
    this.#finished.splice(place < 0 ? this.width : place, 0, { beam, score, finishReason });
    if (this.#finished.length > this.width) this.#finished.pop();
  }

  /** Hugging Face's rule: what the best live beam could reach at most is no more than the worst kept one. */
  #cannotImprove(): boolean {
    const best = this.#live[0];
    if (best === undefined || this.#finished.length < this.width) return false;
    if (this.#earlyStopping === true) return true;
    // With a positive penalty a longer hypothesis of the same log-probability scores better.
    const atBest = this.#earlyStopping === "never" && this.#lengthPenalty > 0;
    const attainable = this.#score(best, atBest ? this.#maxTokens : this.#length);
    return this.#finished.at(-1)!.score >= attainable;
  }

  #score(beam: Beam, length: number): number {
    return beam.cumulativeLogprob / length ** this.#lengthPenalty;
  }
}

function extend({ beam, token, cumulativeLogprob }: RankedMove): Beam {
  return { parent: beam, token, cumulativeLogprob };
}

function tokensOf(last: Beam | undefined): number[] {
  const tokens: number[] = [];
  for (let beam = last; beam !== undefined; beam = beam.parent) tokens.push(beam.token);
  return tokens.reverse();
}
