import { invariant } from "../errors.ts";
import { BlockPool } from "./blockPool.ts";
import { BlockTables } from "./blockTables.ts";
import type { HostBlocks } from "./hostBlocks.ts";
import { checkTable } from "./kvIntegrity.ts";
import { PrefixCache } from "./prefixCache.ts";
import { PrefixHits } from "./prefixHits.ts";
import type { PrefixNode } from "./prefixNode.ts";
import { Retention } from "./retention.ts";
import type { Sequence } from "./sequence.ts";
import { Sessions } from "./sessions.ts";
import type { BlockCopy, BlockSwap } from "./step.ts";
import type { TokenHash } from "./tokenHash.ts";

export interface KvCacheOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** Milliseconds of any monotonic clock. */
  readonly now: () => number;
  readonly hash?: TokenHash;
  /** A block with a cached prefix is taken for something else; so many tokens are lost (0: a duplicate stays). */
  readonly onEviction?: (block: number, numTokens: number) => void;
}

/** Kept prefixes may take this part of the pool while nobody uses them. */
const MAX_KEPT_SHARE = 0.5;

/**
 * The KV pool as sequences see it: their block tables, and the prefixes that they can share.
 *
 * A sequence writes into a block only if it is the only one to hold it and no prefix is cached in it:
 * `reserve` sees to that. So a sequence whose rows are in the step that is being scheduled, or that was
 * swapped in for it, must not be released before `takeCopies`.
 */
export class KvCache {
  readonly #blockSize: number;
  readonly #prefixes: PrefixCache;
  readonly #hits: PrefixHits;
  readonly #pool: BlockPool;
  readonly #tables: BlockTables;
  readonly #retention: Retention;
  readonly #sessions: Sessions;
  #stepId = 0;
  #partialHitTokens = 0;

  constructor(options: KvCacheOptions) {
    const { numBlocks, blockSize, now, hash, onEviction } = options;
    this.#blockSize = blockSize;
    const prefixes: PrefixCache = new PrefixCache({
      numBlocks,
      blockSize,
      hash,
      isFree: (block) => pool.refCount(block) === 0,
      onRankChange: (blocks) => {
        for (const block of blocks) pool.relist(block);
      },
      onPinLost: (pin) => retention.shorten(pin),
      onEviction,
    });
    const pool = new BlockPool(numBlocks, prefixes);
    const tables = new BlockTables(pool, blockSize);
    const maxKept = Math.floor(numBlocks * MAX_KEPT_SHARE);
    const retention = new Retention({ prefixes, pool, now, maxKept });
    this.#prefixes = prefixes;
    this.#hits = new PrefixHits({ prefixes, pool, blockSize });
    this.#pool = pool;
    this.#tables = tables;
    this.#retention = retention;
    this.#sessions = new Sessions({ blockSize, prefixes, copies: tables.copies, retention });
  }

  get pool(): BlockPool {
    return this.#pool;
  }

  /** Blocks that hold a reusable prefix, held by a sequence or not. */
  get numCachedBlocks(): number {
    return this.#prefixes.numBlocks;
  }

  /** Free blocks whose prefix is kept. */
  get numKeptBlocks(): number {
    return this.#pool.numKept;
  }

  /** Blocks with a cached prefix that were taken for something else, so far. */
  get numEvictions(): number {
    return this.#prefixes.numEvictions;
  }

  /** Tokens found by copying a part of a block, so far. */
  get partialHitTokens(): number {
    return this.#partialHitTokens;
  }

  /** Step `stepId`, above all before, is being scheduled. What earlier steps wrote may now be copied. */
  beginStep(stepId: number): void {
    this.#stepId = stepId;
    this.#prefixes.stepId = stepId;
    this.#retention.expire();
  }

  /**
   * Gives a waiting sequence blocks for all its tokens, cached ones first, or changes nothing and
   * returns false; `reserveBlocks` stay free. Blocks of a long prompt are taken at once although it is
   * computed in chunks: a prompt that has begun never lacks blocks for its next chunk.
   */
  admit(sequence: Sequence, reserveBlocks = 0): boolean {
    const numBlocks = Math.ceil(sequence.numTokens / this.#blockSize);
    const numFree = this.#pool.numFree - reserveBlocks;
    const numNeeded = this.#hits.blocksNeeded(sequence);
    if (numNeeded > numFree) return false;
    const hits = this.#hits.find(sequence);
    const partial = this.#hits.findPartial(sequence);
    const sourceIsFree = partial !== undefined && this.#pool.refCount(partial.block) === 0;
    const copied = sourceIsFree && numNeeded === numFree ? undefined : partial;

    // Hits are held before anything is allocated, so that no allocation evicts them.
    if (copied !== undefined) this.#pool.retain(copied.block);
    this.#share(sequence, hits);
    this.#pool.allocate(numBlocks - hits.length, sequence.blockTable);
    if (copied !== undefined) {
      this.#tables.copies.add(copied.block, sequence.blockTable[hits.length]!);
      sequence.numComputedTokens += copied.numTokens;
      this.#partialHitTokens += copied.numTokens;
    }
    return true;
  }

  /** Free blocks that `admit` would take now; hits that nobody holds are among them. */
  blocksNeeded(sequence: Sequence): number {
    return this.#hits.blocksNeeded(sequence);
  }

  /** Length of the prefix that the sequence would find cached now. */
  cachedTokens(sequence: Sequence): number {
    return this.#hits.cachedTokens(sequence);
  }

  /**
   * True if one of `others` is about to compute the block that the sequence would compute first: once it
   * has, the sequence can share it.
   */
  isComputedBy(others: readonly Sequence[], sequence: Sequence): boolean {
    return this.#hits.isComputedBy(others, sequence);
  }

  /** Tokens of a waiting sequence that lie in blocks which nobody holds: it takes them up if they stay. */
  pausedTokens(sequence: Sequence): number {
    return this.#hits.freeTokens(sequence);
  }

  /**
   * Makes the next `numRows` positions after the computed tokens writable: appends blocks, and replaces
   * shared ones by blocks of its own, the first with a copy of what is computed in it. False, and nothing
   * changed, if blocks are missing.
   */
  reserve(sequence: Sequence, numRows: number): boolean {
    return this.#tables.reserve(sequence, numRows);
  }

  /**
   * The child, which holds no blocks and has the tokens of the computed part, goes on from where the
   * parent is and shares all its blocks, the last, partly filled one included.
   */
  fork(parent: Sequence, child: Sequence): void {
    this.#tables.fork(parent, child);
    child.numHashedBlocks = parent.numHashedBlocks;
    child.prefix = parent.prefix;
    child.blockHashes.length = 0;
    for (let i = 0; i < parent.numHashedBlocks; i++) child.blockHashes.push(parent.blockHashes[i]!);
  }

  /** The copies that the step needs; call when all is scheduled. */
  takeCopies(): BlockCopy[] {
    const copies = this.#tables.copies.take();
    this.#pool.notePeak();
    this.#retention.trim();
    return copies;
  }

  /**
   * Offers the sequence's computed full blocks for sharing, as far as their tokens are known. Called when
   * their rows are scheduled, not when they have run: a layer writes the K and V of all rows before any
   * row attends, so a sequence of the very same step may use them.
   */
  cacheFullBlocks(sequence: Sequence): void {
    const numFull = Math.floor(knownTokens(sequence) / this.#blockSize);
    for (let i = sequence.numHashedBlocks; i < numFull; i++) {
      const block = sequence.blockTable[i]!;
      sequence.prefix = this.#prefixes.insert(sequence.prefix, sequence, i, block);
    }
    sequence.numHashedBlocks = Math.max(numFull, sequence.numHashedBlocks);
  }

  /** Only so many tokens are computed, as drafts were rejected: blocks that no token needs are given back. */
  truncate(sequence: Sequence, numComputedTokens: number): void {
    const { numHashedBlocks } = sequence;
    invariant(
      numComputedTokens <= sequence.numComputedTokens &&
        numComputedTokens >= numHashedBlocks * this.#blockSize,
      `${sequence.numComputedTokens} computed tokens, ${numHashedBlocks} blocks of them cached, are cut to ${numComputedTokens}.`,
    );
    sequence.numComputedTokens = numComputedTokens;
    this.#tables.shrink(
      sequence,
      Math.max(Math.ceil(sequence.numTokens / this.#blockSize), numHashedBlocks),
    );
  }

  /**
   * Takes all blocks back. Their cached prefixes stay usable until the blocks are needed: the full
   * blocks, and what is known and computed of the last one.
   */
  release(sequence: Sequence): void {
    this.#registerTail(sequence);
    for (let i = 0; i < sequence.numHashedBlocks; i++) {
      this.#retention.renew(this.#prefixes.nodeOf(sequence.blockTable[i]!));
    }
    this.#tables.shrink(sequence, 0);
    sequence.numComputedTokens = 0;
    sequence.numHashedBlocks = 0;
    sequence.prefix = undefined;
    this.#sessions.released(sequence);
    this.#retention.trim();
  }

  /** Blocks that would be free without the sequence. */
  exclusiveBlocks(sequence: Sequence): number {
    return this.#tables.countExclusive(sequence);
  }

  /** Computed tokens that would have to be computed again if those blocks were used for something else. */
  recomputeTokens(sequence: Sequence): number {
    return this.#tables.countExclusiveTokens(sequence);
  }

  /**
   * Releases a sequence's blocks and has their content brought to the host before they are used for
   * anything else. Undefined, and nothing changed, if the host has no room, or if something of it is only
   * there when this step has run, or nothing at all. The last token is computed again: its sample is void.
   */
  swapOut(sequence: Sequence, hostBlocks: HostBlocks): BlockSwap[] | undefined {
    const { blockTable } = sequence;
    const numComputedTokens = Math.min(
      sequence.numComputedTokens,
      sequence.firstNeededRow,
      sequence.tokens.length - 1,
    );
    const count = Math.ceil(numComputedTokens / this.#blockSize);
    const isToCome = (block: number) =>
      this.#tables.copies.hasTarget(block) || this.#prefixes.isWrittenNow(block);
    if (count === 0 || blockTable.some(isToCome)) return undefined;
    const blocks = hostBlocks.allocate(count, this.#stepId);
    if (blocks === undefined) return undefined;
    const swaps = blocks.map((hostBlock, i) => ({ block: blockTable[i]!, hostBlock }));
    this.release(sequence);
    sequence.swapped = { hostBlocks, blocks, numComputedTokens, stepId: this.#stepId };
    return swaps;
  }

  /**
   * Gives a sequence that is swapped out blocks for all its tokens, as `admit` does, and says which to
   * fill from the host. Undefined, and nothing changed, if blocks are missing.
   */
  swapIn(sequence: Sequence, reserveBlocks = 0): BlockSwap[] | undefined {
    const { swapped } = sequence;
    invariant(swapped !== undefined, "A sequence that is not swapped out is swapped in.");
    const numBlocks = Math.ceil(sequence.numTokens / this.#blockSize);
    if (this.#hits.blocksNeeded(sequence) > this.#pool.numFree - reserveBlocks) return undefined;
    const hits = this.#hits.find(sequence);
    this.#share(sequence, hits);
    this.#pool.allocate(numBlocks - hits.length, sequence.blockTable);
    const swaps: BlockSwap[] = [];
    for (let i = hits.length; i < swapped.blocks.length; i++) {
      swaps.push({ block: sequence.blockTable[i]!, hostBlock: swapped.blocks[i]! });
    }
    sequence.numComputedTokens = Math.max(sequence.numComputedTokens, swapped.numComputedTokens);
    this.dropSwapped(sequence);
    this.cacheFullBlocks(sequence);
    return swaps;
  }

  /** Gives up what the host holds of a sequence: it has ended, or is to be recomputed. */
  dropSwapped(sequence: Sequence): void {
    const { swapped } = sequence;
    if (swapped === undefined) return;
    swapped.hostBlocks.release(swapped.blocks, this.#stepId);
    sequence.swapped = undefined;
  }

  /**
   * Has the full blocks of the sequence's prompt, as far as they are computed, evicted after all others,
   * until `ttlMs` after their last use (Infinity: no end) or until `session` ends. Call it before the
   * sequence is released; at most half of the pool is kept so.
   */
  keep(sequence: Sequence, ttlMs: number, session?: string): void {
    if (session !== undefined) this.#sessions.touch(session);
    let node = sequence.prefix;
    const numPrompt = Math.floor(sequence.numPromptTokens / this.#blockSize);
    for (let i = sequence.numHashedBlocks; i > numPrompt; i--) node = node!.parent;
    if (node?.parent !== undefined) this.#retention.keep(node, ttlMs, session);
  }

  /**
   * The sequence is the session's present turn. What the turn before it has and this one does not begin
   * with is evicted before all else, once nobody holds it. Call it when the turn was admitted.
   */
  noteSession(session: string, sequence: Sequence): void {
    this.#sessions.note(session, sequence);
  }

  /** Nobody will come back to what the sequence has: evicted before all else, once nobody holds it. */
  leave(sequence: Sequence): void {
    this.#sessions.leave(sequence);
  }

  /** The session is over: its last turn is evicted before all else, and what it kept is kept no more. */
  endSession(session: string): void {
    this.#sessions.end(session);
  }

  /** Forgets all prefixes: what the pool holds is lost or doubtful. No sequence may hold a block. */
  clear(): void {
    invariant(this.#pool.numUsed === 0, "The KV cache is cleared while sequences hold blocks.");
    this.#prefixes.clear();
    this.#retention.clear();
    this.#sessions.clear();
    this.#pool.reset();
  }

  /** Forgets all prefixes, unless a sequence holds blocks: then nothing changes and it returns false. */
  resetPrefixes(): boolean {
    if (this.#pool.numUsed > 0) return false;
    this.clear();
    return true;
  }

  /** Throws `internal` unless pool, prefixes and the tables of `sequences` (all that hold blocks) agree. */
  checkIntegrity(sequences: Iterable<Sequence>): void {
    const holders = new Int32Array(this.#pool.numBlocks);
    for (const sequence of sequences) {
      for (const block of sequence.blockTable) holders[block]! += 1;
      checkTable(sequence, this.#prefixes, this.#blockSize);
    }
    this.#tables.copies.countHolders(holders);
    this.#pool.checkIntegrity(holders);
    this.#prefixes.checkIntegrity();
    for (const block of holders.keys()) {
      const node = this.#prefixes.nodeOf(block);
      if (node === undefined) continue;
      const before = node.parent?.blocks[0];
      const isRight =
        this.#pool.refCount(block) === 0
          ? node.blocks.length === 1
          : before === undefined || this.#pool.refCount(before) > 0;
      invariant(
        isRight,
        `KV block ${block} is a free duplicate, or held without what is before it.`,
      );
    }
    this.#retention.checkIntegrity();
  }

  /** The sequence's table begins with these cached blocks. */
  #share(sequence: Sequence, hits: readonly PrefixNode[]): void {
    for (const node of hits) {
      this.#tables.share(sequence, node.blocks[0]!);
      this.#prefixes.setSuperseded(node, false);
      this.#retention.renew(node);
    }
    sequence.numComputedTokens = hits.length * this.#blockSize;
    sequence.numHashedBlocks = hits.length;
    sequence.numSentBlocks = 0;
    sequence.prefix = hits.at(-1);
  }

  /** What is computed of the last block can be copied by others, if nobody goes on writing into it. */
  #registerTail(sequence: Sequence): void {
    this.cacheFullBlocks(sequence);
    const { numHashedBlocks, blockTable } = sequence;
    const start = numHashedBlocks * this.#blockSize;
    const end = knownTokens(sequence);
    const block = blockTable[numHashedBlocks];
    if (block === undefined || start >= end) return;
    // What is to be copied into the block in this step will not be, if nobody holds it any more.
    if (this.#pool.refCount(block) > 1 || this.#tables.copies.hasTarget(block)) return;
    this.#prefixes.insertTail(sequence.prefix, sequence, start, end, block);
  }
}

/** Tokens that are computed and whose values the host knows. */
function knownTokens({ numComputedTokens, tokens }: Sequence): number {
  return Math.min(numComputedTokens, tokens.length);
}
