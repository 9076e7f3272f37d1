import { invariant } from "../errors.ts";
import type { BlockPool } from "./blockPool.ts";
import type { PrefixCache } from "./prefixCache.ts";
import type { Pin, PrefixNode } from "./prefixNode.ts";

export interface RetentionOptions {
  readonly prefixes: PrefixCache;
  readonly pool: BlockPool;
  /** Milliseconds of any monotonic clock. */
  readonly now: () => number;
  /** Most kept blocks that are free. */
  readonly maxKept: number;
}

/**
 * Prefixes that are kept: their free blocks are evicted after all others. A pin holds a prefix from the
 * root to its node for a time after its last use. Past the cap the prefix that was used longest ago is
 * shortened from its end.
 */
export class Retention {
  readonly #prefixes: PrefixCache;
  readonly #pool: BlockPool;
  readonly #now: () => number;
  readonly #maxKept: number;
  readonly #pins = new Set<Pin>(); // in order of last use
  readonly #pinOfSession = new Map<string, Pin>();
  readonly #due: Pin[] = []; // those that may expire, by `dueAt`, the first last

  constructor(options: RetentionOptions) {
    this.#prefixes = options.prefixes;
    this.#pool = options.pool;
    this.#now = options.now;
    this.#maxKept = options.maxKept;
  }

  /**
   * Keeps the prefix that ends with `node` until `ttlMs` after its last use, or until `session` ends. A
   * session keeps one prefix, the last that it asked for.
   */
  keep(node: PrefixNode, ttlMs: number, session: string | undefined): void {
    const pin = node.pin ?? this.#add(node);
    pin.ttlMs = Math.max(pin.ttlMs, ttlMs);
    if (session === undefined) {
      pin.isAnonymous = true;
    } else {
      const before = this.#pinOfSession.get(session);
      pin.sessions.add(session);
      this.#pinOfSession.set(session, pin);
      if (before !== undefined && before !== pin) this.#leave(before, session);
    }
    this.#use(pin);
    if (pin.dueAt === Number.POSITIVE_INFINITY) this.#schedule(pin);
    this.trim();
  }

  /** The node's block comes or ceases to be held: if a kept prefix ends here, its time begins anew. */
  renew(node: PrefixNode | undefined): void {
    if (node?.pin !== undefined) this.#use(node.pin);
  }

  /** Ends what has expired. O(expired). */
  expire(): void {
    const now = this.#now();
    for (let pin = this.#due.at(-1); pin !== undefined; pin = this.#due.at(-1)) {
      if (pin.dueAt > now) return;
      this.#due.pop();
      if (this.#isInUse(pin)) this.#use(pin);
      if (pin.expiresAt > now) this.#schedule(pin);
      else this.#remove(pin);
    }
  }

  endSession(session: string): void {
    const pin = this.#pinOfSession.get(session);
    if (pin === undefined) return;
    this.#pinOfSession.delete(session);
    this.#leave(pin, session);
  }

  /** Holds the number of kept free blocks under the cap. What is in use is not among them, and is left alone. */
  trim(): void {
    if (this.#pool.numKept <= this.#maxKept) return;
    for (const pin of this.#pins) {
      while (this.#pool.numKept > this.#maxKept && this.#pins.has(pin) && !this.#isInUse(pin)) {
        this.shorten(pin);
      }
    }
  }

  /** The prefix loses its last block: it is kept up to the one before, unless another is already. */
  shorten(pin: Pin): void {
    const { node } = pin;
    const parent = node.parent!;
    if (parent.parent === undefined || parent.pin !== undefined) {
      this.#remove(pin);
      return;
    }
    node.pin = undefined;
    parent.pin = pin;
    pin.node = parent;
    this.#prefixes.addPin(node, -1);
  }

  clear(): void {
    this.#pins.clear();
    this.#pinOfSession.clear();
    this.#due.length = 0;
  }

  /** Throws `internal` unless pins, nodes and sessions agree. */
  checkIntegrity(): void {
    for (const pin of this.#pins) {
      invariant(
        pin.node.pin === pin && pin.node.blocks.length > 0 && pin.node.numPins > 0,
        "A kept prefix has lost its node.",
      );
      invariant(pin.isAnonymous || pin.sessions.size > 0, "A prefix is kept for nobody.");
      for (const session of pin.sessions) {
        const isOwn = this.#pinOfSession.get(session) === pin;
        invariant(isOwn, `Session ${session} keeps another prefix than it asked for.`);
      }
      const isDue = this.#due.includes(pin) && pin.dueAt <= pin.expiresAt;
      invariant(
        isDue || pin.expiresAt === Number.POSITIVE_INFINITY,
        "A kept prefix never expires.",
      );
    }
    for (const [session, pin] of this.#pinOfSession) {
      invariant(pin.sessions.has(session), `Session ${session} keeps what it did not ask for.`);
    }
    invariant(
      this.#pool.numKept <= this.#maxKept,
      `${this.#pool.numKept} kept KV blocks are free; the cap is ${this.#maxKept}.`,
    );
  }

  #add(node: PrefixNode): Pin {
    const pin: Pin = {
      node,
      ttlMs: 0,
      expiresAt: 0,
      dueAt: Number.POSITIVE_INFINITY,
      sessions: new Set(),
      isAnonymous: false,
    };
    node.pin = pin;
    this.#addToPath(node, 1);
    return pin;
  }

  /** Whoever holds the end of a prefix holds all of it. */
  #isInUse({ node }: Pin): boolean {
    return this.#pool.refCount(node.blocks[0]!) > 0;
  }

  #use(pin: Pin): void {
    pin.expiresAt = this.#now() + pin.ttlMs;
    this.#pins.delete(pin);
    this.#pins.add(pin);
  }

  /** Every pin that may expire is in the list once; uses since then are seen when it is due. */
  #schedule(pin: Pin): void {
    pin.dueAt = pin.expiresAt;
    if (pin.dueAt === Number.POSITIVE_INFINITY) return;
    const place = this.#due.findLastIndex(({ dueAt }) => dueAt > pin.dueAt);
    this.#due.splice(place + 1, 0, pin);
  }

  #leave(pin: Pin, session: string): void {
    pin.sessions.delete(session);
    if (pin.sessions.size === 0 && !pin.isAnonymous) this.#remove(pin);
  }

  #remove(pin: Pin): void {
    this.#forget(pin);
    this.#addToPath(pin.node, -1);
  }

  #forget(pin: Pin): void {
    this.#pins.delete(pin);
    const place = this.#due.indexOf(pin);
    if (place >= 0) this.#due.splice(place, 1);
    pin.node.pin = undefined;
    for (const session of pin.sessions) this.#pinOfSession.delete(session);
  }

  /** Up from the end, so that a block is listed before those of the prefix before it. */
  #addToPath(node: PrefixNode, change: 1 | -1): void {
    for (let at = node; at.parent !== undefined; at = at.parent) this.#prefixes.addPin(at, change);
  }
}
