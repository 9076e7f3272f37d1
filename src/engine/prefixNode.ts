/**
 * Tokens of one block after one particular prefix. Its identity stands for the whole prefix: two nodes
 * with equal tokens but different parents are different nodes.
 */
export interface PrefixNode {
  /** Hash of the parent's hash and the tokens: finds a full node, proves nothing. 0 for a tail. */
  readonly hash: number;
  /** Undefined for the root of a scope, which has no tokens and no blocks. */
  readonly parent: PrefixNode | undefined;
  /** [blockSize], or fewer: a tail, which a sequence left behind. A tail has no children. */
  readonly tokens: readonly number[];
  /** Blocks that hold the K and V of these tokens after this prefix; if they are several, all are held. */
  readonly blocks: number[];
  /** In the order of their tokens. */
  readonly children: PrefixNode[];
  /** Next full node of equal hash. */
  sameHash: PrefixNode | undefined;
  /** A branch that was left, or a tail that went on in a full block: evicted before others. */
  isSuperseded: boolean;
  /** Kept prefixes that pass through here or end here. */
  numPins: number;
  /** The kept prefix that ends here. */
  pin: Pin | undefined;
}

/** A prefix that is kept: evicted after all others until it expires. */
export interface Pin {
  /** Its last node; it moves up when the cap on kept blocks shortens the prefix. */
  node: PrefixNode;
  ttlMs: number;
  /** Milliseconds of the clock; Infinity = never. */
  expiresAt: number;
  /** When to look whether it has expired: never after `expiresAt`. Infinity if nobody looks. */
  dueAt: number;
  /** Sessions that keep it; the last that ends ends it. */
  readonly sessions: Set<string>;
  /** Somebody without a session keeps it too. */
  isAnonymous: boolean;
}

/** What must be equal, besides the tokens, for two sequences to share a prefix. */
export interface PrefixScope {
  /** The user's `cacheSalt`. */
  readonly salt: string;
  /** LoRA adapter that computed K and V; null = the base model. */
  readonly adapterId: string | null;
}

export const DEFAULT_SCOPE: PrefixScope = { salt: "", adapterId: null };

/** The end of a run of full blocks from the root on. */
export interface PrefixPlace {
  /** Undefined at the root. */
  readonly node: PrefixNode | undefined;
  /** Blocks up to there. */
  readonly count: number;
}

/** Tokens to look up or to remember, and what keys them. A `Sequence` is one. */
export interface PrefixKey {
  /** Only ever appended to. */
  readonly tokens: readonly number[];
  readonly prefixScope: PrefixScope;
  /** Hashes of full blocks of the tokens, as far as they were asked for; the cache writes them. */
  readonly blockHashes: number[];
  /** Where the last lookup ended, for the next to go on from there; the cache writes it. */
  lastHit: PrefixPlace | undefined;
}
