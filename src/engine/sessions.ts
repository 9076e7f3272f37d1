import type { BlockCopies } from "./blockCopies.ts";
import type { PrefixCache } from "./prefixCache.ts";
import type { PrefixKey, PrefixNode } from "./prefixNode.ts";
import type { Retention } from "./retention.ts";
import type { RequestId, Sequence } from "./sequence.ts";
import { commonLength } from "./tokenOrder.ts";

/** Most sessions that are remembered; the one that was heard of longest ago is forgotten first. */
export const MAX_SESSIONS = 1024;

/** What a sample of a turn leaves behind. The sequence itself, which has much more, is not held for it. */
interface Branch extends PrefixKey {
  /** The sequence's own, empty when it has let go of its blocks. */
  readonly blockTable: readonly number[];
}

/** The last turn of a conversation. */
interface Turn {
  readonly requestId: RequestId;
  /** Its samples. */
  readonly branches: Branch[];
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
  /** Branches that were left while their sequences hold blocks, by block table; how many tokens are not part of it. */
  readonly #left = new Map<
    readonly number[],
    { readonly branch: Branch; readonly numCommon: number }
  >();

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
    const { requestId, tokens, prefixScope } = sequence;
    const branch = branchOf(sequence);
    if (turn?.requestId === requestId) {
      if (!turn.branches.some((known) => known.tokens === tokens)) turn.branches.push(branch);
      return;
    }
    this.#turns.set(session, { requestId, branches: [branch] });
    for (const before of turn?.branches ?? []) {
      const isComparable =
        before.prefixScope.salt === prefixScope.salt &&
        before.prefixScope.adapterId === prefixScope.adapterId;
      if (isComparable) this.#leave(before, commonLength(before.tokens, tokens));
    }
  }

  /** Nobody will come back to any of what the sequence holds. */
  leave(sequence: Sequence): void {
    this.#leave(branchOf(sequence), 0);
  }

  /** Nobody will come back: the whole last turn is evicted first, and what it kept is kept no more. */
  end(session: string): void {
    this.#retention.endSession(session);
    const turn = this.#turns.get(session);
    this.#turns.delete(session);
    for (const branch of turn?.branches ?? []) this.#leave(branch, 0);
  }

  /** The sequence has let go of its blocks. */
  released({ blockTable }: Sequence): void {
    const left = this.#left.get(blockTable);
    if (left === undefined) return;
    this.#left.delete(blockTable);
    this.#supersede(left.branch, left.numCommon);
  }

  clear(): void {
    this.#turns.clear();
    this.#left.clear();
  }

  #leave(branch: Branch, numCommon: number): void {
    const { blockTable } = branch;
    if (blockTable.length > 0) this.#left.set(blockTable, { branch, numCommon });
    else this.#supersede(branch, numCommon);
  }

  /**
   * Walks up from the end of the branch to what is common, or kept, or held, or has another
   * continuation: a node is superseded only if all behind it is.
   */
  #supersede(branch: Branch, numCommon: number): void {
    const { tokens } = branch;
    const numFull = Math.floor(tokens.length / this.#blockSize);
    const nodes = this.#prefixes.find(branch, numFull);
    const start = nodes.length * this.#blockSize;
    const end = Math.min(tokens.length, start + this.#blockSize);
    const tail = this.#prefixes.findTail(nodes.at(-1), branch, start, end);
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

function branchOf({ tokens, prefixScope, blockHashes, blockTable }: Sequence): Branch {
  return { tokens, prefixScope, blockHashes, blockTable, lastHit: undefined };
}
