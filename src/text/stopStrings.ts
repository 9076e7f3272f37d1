import { QuireError } from "../errors.ts";

/** What a push lets out. */
export interface StopResult {
  /** Text that no stop string can take back any more. */
  readonly text: string;
  /** The stop string that was found. It is not in the text, and neither is what follows it. */
  readonly stop: string | undefined;
}

/** A prefix of some stop string; the root is the empty one. */
interface State {
  readonly depth: number;
  readonly next: Map<number, State>;
  /** The longest proper suffix of this prefix that is a prefix of a stop string too. */
  fallback: State | undefined;
  /** The longest stop string that ends here. */
  stop: string | undefined;
}

const createState = (depth: number): State => ({
  depth,
  next: new Map(),
  fallback: undefined,
  stop: undefined,
});

/**
 * Watches a streamed text for stop strings. Text is held back exactly as long as it may be the
 * beginning of one. The stop string that is complete first wins; of several complete at once, the
 * longest. How the text is cut into pushes makes no difference.
 */
export class StopStrings {
  readonly #root: State;
  #state: State;
  /** The held-back text: the prefix that the current state stands for. */
  #held = "";
  #stop: string | undefined;

  /** Throws `invalid-argument` for an empty stop string. Lone surrogates count as U+FFFD. */
  constructor(stops: readonly string[]) {
    this.#root = createState(0);
    for (const [i, stop] of stops.entries()) {
      if (typeof stop !== "string" || stop === "") {
        throw new QuireError(
          "invalid-argument",
          `Stop string ${i} is ${stop === "" ? "empty" : "not a string"}. Pass strings of at least one character.`,
          { index: i },
        );
      }
      this.#insert(stop.replace(/\p{Surrogate}/gu, "\uFFFD"));
    }
    linkFallbacks(this.#root);
    this.#state = this.#root;
  }

  /** Takes the next piece of text. After a stop string was found, nothing comes out any more. */
  push(text: string): StopResult {
    if (this.#stop !== undefined) return { text: "", stop: this.#stop };
    const pending = this.#held + text;
    for (let at = this.#held.length; at < pending.length; at++) {
      this.#state = this.#advance(pending.charCodeAt(at));
      const { stop } = this.#state;
      if (stop !== undefined) {
        this.#stop = stop;
        this.#held = "";
        return { text: pending.slice(0, at + 1 - stop.length), stop };
      }
    }
    const certain = pending.length - this.#state.depth;
    this.#held = pending.slice(certain);
    return { text: pending.slice(0, certain), stop: undefined };
  }

  /** Ends the text; returns what was held back. */
  finish(): string {
    const rest = this.#held;
    this.#held = "";
    this.#state = this.#root;
    return rest;
  }

  #advance(unit: number): State {
    for (let state: State | undefined = this.#state; state !== undefined; state = state.fallback) {
      const next = state.next.get(unit);
      if (next !== undefined) return next;
    }
    return this.#root;
  }

  #insert(stop: string): void {
    let state = this.#root;
    for (let at = 0; at < stop.length; at++) {
      const unit = stop.charCodeAt(at);
      let next = state.next.get(unit);
      if (next === undefined) {
        next = createState(at + 1);
        state.next.set(unit, next);
      }
      state = next;
    }
    state.stop = stop;
  }
}

/** Breadth first, since the fallback of a state is nearer to the root than the state. */
function linkFallbacks(root: State): void {
  const queue = [root];
  for (const state of queue) {
    for (const [unit, next] of state.next) {
      let fallback = state.fallback;
      while (fallback !== undefined && !fallback.next.has(unit)) fallback = fallback.fallback;
      next.fallback = fallback?.next.get(unit) ?? root;
      next.stop ??= next.fallback.stop;
      queue.push(next);
    }
  }
}
