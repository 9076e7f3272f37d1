import type { BlockCopies } from "./blockCopies.ts";
import type { PrefixCache } from "./prefixCache.ts";
import type { PrefixNode } from "./prefixNode.ts";
import type { Retention } from "./retention.ts";
import type { RequestId, Sequence } from "./sequence.ts";
import { commonLength } from "./tokenOrder.ts";

/** Most sessions that are remembered; the one that was heard of longest ago is forgotten first. */
export const MAX_SESSIONS = 1024;

/** The last turn of a conversation. */
interface Turn {
  readonly requestId: RequestId;
  /** Its samples. */
  readonly sequences: Sequence[];
}

export interface SessionsOptions {
  readonly blockSize: number;
  readonly prefixes: PrefixCache;
  readonly copies: BlockCopies;
  readonly retention: Retention;
}

/**
 * What conversations have left behind. A turn that does not continue the one before it (an edited
 * message, another answer) leaves a branch that nobody will ask for again: its blocks are evicted first.
 */
export class Sessions {
  readonly #blockSize: number;
  readonly #prefixes: PrefixCache;
  readonly #copies: BlockCopies;
  readonly #retention: Retention;
  readonly #turns = new Map<string, Turn | undefined>(); // in order of last mention
  /** Sequences that hold blocks still, of branches that were left; how many tokens are not part of it. */
  readonly #left = new Map<Sequence, number>();

  constructor(options: SessionsOptions) {
    this.#blockSize = options.blockSize;
    this.#prefixes = options.prefixes;
    this.#copies = options.copies;
    this.#retention = options.retention;
  }

  /** Remembers a session, without a turn if it is new. */
  touch(session: string): void {
    const turn = this.#turns.get(session);
    this.#turns.delete(session);
    this.#turns.set(session, turn);
    if (this.#turns.size <= MAX_SESSIONS) return;
    const [oldest] = this.#turns.keys();
    this.#turns.delete(oldest!);
    this.#retention.endSession(oldest!);
  }

  /** The sequence is the session's present turn, or another sample of it. */
  note(session: string, sequence: Sequence): void {
    this.touch(session);
    const turn = this.#turns.get(session);
    if (turn?.requestId === sequence.requestId) {
      if (!turn.sequences.includes(sequence)) turn.sequences.push(sequence);
      return;
    }
    this.#turns.set(session, { requestId: sequence.requestId, sequences: [sequence] });
    for (const before of turn?.sequences ?? []) {
      const isComparable =
        before.prefixScope.salt === sequence.prefixScope.salt &&
        before.prefixScope.adapterId === sequence.prefixScope.adapterId;
      if (isComparable) this.#leave(before, commonLength(before.tokens, sequence.tokens));
    }
  }

  /** Nobody will come back: the whole last turn is evicted first, and what it kept is kept no more. */
  end(session: string): void {
    this.#retention.endSession(session);
    const turn = this.#turns.get(session);
    this.#turns.delete(session);
    for (const sequence of turn?.sequences ?? []) this.#leave(sequence, 0);
  }

  /** The sequence has let go of its blocks. */
  released(sequence: Sequence): void {
    const numCommon = this.#left.get(sequence);
    if (numCommon === undefined) return;
    this.#left.delete(sequence);
    this.#supersede(sequence, numCommon);
  }

  clear(): void {
    this.#turns.clear();
    this.#left.clear();
  }

  #leave(sequence: Sequence, numCommon: number): void {
    if (sequence.blockTable.length > 0) this.#left.set(sequence, numCommon);
    else this.#supersede(sequence, numCommon);
  }

  /**
   * Walks up from the end of the branch to what is common, or kept, or held, or has another
   * continuation: a node is superseded only if all behind it is.
   */
  #supersede(sequence: Sequence, numCommon: number): void {
    const { tokens } = sequence;
    const numFull = Math.floor(tokens.length / this.#blockSize);
    const nodes = this.#prefixes.find(sequence, numFull);
    const start = nodes.length * this.#blockSize;
    const end = Math.min(tokens.length, start + this.#blockSize);
    const tail = this.#prefixes.findTail(nodes.at(-1), sequence, start, end);
    if (tail !== undefined && start + tail.tokens.length > numCommon) {
      this.#prefixes.setSuperseded(tail, true);
    }
    for (let i = nodes.length - 1; (i + 1) * this.#blockSize > numCommon; i--) {
      const node = nodes[i];
      if (node === undefined || !this.#isUnused(node)) return;
      for (const child of node.children) this.#prefixes.setSuperseded(child, true);
      this.#prefixes.setSuperseded(node, true);
    }
  }

  #isUnused({ numPins, blocks, children }: PrefixNode): boolean {
    return (
      numPins === 0 &&
      blocks.every((block) => this.#copies.numOwners(block) === 0) &&
      children.every((child) => child.isSuperseded || this.#prefixes.isTail(child))
    );
  }
}
