import { invariant } from "../errors.ts";
import { BLOCK_RANK, type BlockContents, type BlockRank } from "./blockPool.ts";
import type { Pin, PrefixKey, PrefixNode, PrefixPlace } from "./prefixNode.ts";
import { PrefixTree } from "./prefixTree.ts";
import { hashTokens, type TokenHash } from "./tokenHash.ts";
import { commonLength, lowerBound } from "./tokenOrder.ts";

/** A cached block whose first tokens are those that are looked for. */
export interface PartialHit {
  readonly block: number;
  readonly numTokens: number;
}

export interface PrefixCacheOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly hash?: TokenHash | undefined;
  /** Nobody holds the block. */
  readonly isFree: (block: number) => boolean;
  /** The ranks of these blocks have changed, or they were of use. */
  readonly onRankChange: (blocks: readonly number[]) => void;
  /** The last node of a kept prefix is lost, because everything else is in use. */
  readonly onPinLost: (pin: Pin) => void;
  /** A block is lost to another use, and with it this many tokens (0: a duplicate holds them still). */
  readonly onEviction?: ((block: number, numTokens: number) => void) | undefined;
}

/** Neighbours on each side that a partial hit looks at; only those written in this very step are passed over. */
const MAX_NEIGHBOURS = 8;

/**
 * Which blocks hold which token prefix, and what they are worth.
 *
 * A node is never evicted before its children, so every node's parent is in the cache as long as the
 * node is. It follows from two rules. A parent's rank is never below its children's: prefixes are kept
 * from the root on, and only what has no other use behind it is superseded. And within a rank a parent
 * is always listed after its children: whoever lets go of blocks holds a whole chain and releases it last
 * block first, and whoever changes ranks walks up.
 */
export class PrefixCache implements BlockContents {
  /** The step that is being scheduled: what it writes can be shared but not yet copied. */
  stepId = 0;
  readonly #tree: PrefixTree;
  readonly #isFree: (block: number) => boolean;
  readonly #onRankChange: (blocks: readonly number[]) => void;
  readonly #onPinLost: (pin: Pin) => void;
  readonly #onEviction: ((block: number, numTokens: number) => void) | undefined;
  readonly #nodeOfBlock: (PrefixNode | undefined)[]; // [numBlocks]
  readonly #placeInNode: Int32Array; // [numBlocks]: index of the block in its node's blocks
  readonly #writtenIn: Float64Array; // [numBlocks]: id of the last step that wrote the content
  #numBlocks = 0;
  #numEvictions = 0;

  constructor(options: PrefixCacheOptions) {
    const { numBlocks } = options;
    this.#tree = new PrefixTree(options.blockSize, options.hash ?? hashTokens);
    this.#isFree = options.isFree;
    this.#onRankChange = options.onRankChange;
    this.#onPinLost = options.onPinLost;
    this.#onEviction = options.onEviction;
    this.#nodeOfBlock = new Array<PrefixNode | undefined>(numBlocks).fill(undefined);
    this.#placeInNode = new Int32Array(numBlocks);
    this.#writtenIn = new Float64Array(numBlocks);
  }

  /** Blocks that hold a reusable prefix, whether a sequence holds them or not. */
  get numBlocks(): number {
    return this.#numBlocks;
  }

  /** Blocks with a prefix that were taken for something else. */
  get numEvictions(): number {
    return this.#numEvictions;
  }

  nodeOf(block: number): PrefixNode | undefined {
    return this.#nodeOfBlock[block];
  }

  /** True for a block with a prefix that is there only when the step that is being scheduled has run. */
  isWrittenNow(block: number): boolean {
    return this.#nodeOfBlock[block] !== undefined && this.#writtenIn[block] === this.stepId;
  }

  isTail(node: PrefixNode): boolean {
    return this.#tree.isTail(node);
  }

  rank(block: number): BlockRank {
    const node = this.#nodeOfBlock[block];
    if (node === undefined) return BLOCK_RANK.empty;
    if (node.numPins > 0) return BLOCK_RANK.kept;
    return node.isSuperseded ? BLOCK_RANK.superseded : BLOCK_RANK.cached;
  }

  /** True if the first of `key`'s next full blocks, up to `maxBlocks`, is what one of `others` has yet to compute. */
  isDue(
    key: PrefixKey,
    maxBlocks: number,
    others: readonly (PrefixKey & { readonly numComputedTokens: number })[],
  ): boolean {
    const index = this.seek(key, maxBlocks).count;
    if (index === maxBlocks) return false;
    const hash = this.#tree.hashOf(key, index);
    const end = (index + 1) * this.#tree.blockSize;
    return others.some(
      (other) =>
        other.numComputedTokens < end &&
        end <= other.tokens.length &&
        this.#tree.hashOf(other, index) === hash,
    );
  }

  /**
   * The end of the longest run of full cached blocks that `key` begins with, at most `maxBlocks` of them.
   * Asked again, it costs what has changed since, whatever the length.
   */
  seek(key: PrefixKey, maxBlocks: number): PrefixPlace {
    key.lastHit = this.seekWhere(key, maxBlocks, key.lastHit, isCached);
    return key.lastHit;
  }

  /**
   * The end of the longest such run of nodes for which `isIn` is true; where it is true for a node, it must
   * be for all before it, and it must not be for one that is not cached. Searched from `from` on, where an
   * earlier search for `key` ended.
   */
  seekWhere(
    key: PrefixKey,
    maxBlocks: number,
    from: PrefixPlace | undefined,
    isIn: (node: PrefixNode) => boolean,
  ): PrefixPlace {
    let { node, count } = from ?? { node: undefined, count: 0 };
    while (count > maxBlocks || (node !== undefined && !isIn(node))) {
      count -= 1;
      node = count === 0 ? undefined : node!.parent;
    }
    let parent = node ?? this.#tree.root(key.prefixScope);
    while (parent !== undefined && count < maxBlocks) {
      parent = this.#tree.find(parent, key, count);
      if (parent === undefined || !isIn(parent)) break;
      node = parent;
      count += 1;
    }
    return { node, count };
  }

  /** The nodes of the run that `seek` finds. */
  find(key: PrefixKey, maxBlocks: number): PrefixNode[] {
    const { node: last, count } = this.seek(key, maxBlocks);
    const found: PrefixNode[] = [];
    for (let node = last; found.length < count; node = node!.parent) found.push(node!);
    return found.reverse();
  }

  /**
   * The block after `parent` (undefined: at the start) that shares the most leading tokens with
   * [start, end) of `key` and was written by an earlier step.
   */
  findPartial(
    parent: PrefixNode | undefined,
    key: PrefixKey,
    start: number,
    end: number,
  ): PartialHit | undefined {
    const children = this.#childrenOf(parent, key);
    if (start >= end) return undefined;
    const place = lowerBound(children, key.tokens, start, end);
    let best: PartialHit | undefined;
    for (const direction of [-1, 1]) {
      for (let i = 0; i < MAX_NEIGHBOURS; i++) {
        const child = children[direction < 0 ? place - 1 - i : place + i];
        if (child === undefined) break;
        // Shared tokens only get fewer with the distance.
        const numTokens = commonLength(child.tokens, key.tokens, start, end);
        if (numTokens <= (best?.numTokens ?? 0)) break;
        const block = child.blocks.find((own) => !this.isWrittenNow(own));
        if (block === undefined) continue;
        best = { block, numTokens };
        break;
      }
    }
    return best;
  }

  /**
   * The tail after `parent` that [start, end) of `key` begins with. Of several it is the longest, and the
   * others are superseded.
   */
  findTail(
    parent: PrefixNode | undefined,
    key: PrefixKey,
    start: number,
    end: number,
  ): PrefixNode | undefined {
    const children = this.#childrenOf(parent, key);
    const place = lowerBound(children, key.tokens, start, end);
    // Either the very tokens, or what comes right before them.
    for (const child of [children[place], children[place - 1]]) {
      if (child === undefined || !this.isTail(child)) continue;
      const numTokens = commonLength(child.tokens, key.tokens, start, end);
      if (numTokens === child.tokens.length) return child;
    }
    return undefined;
  }

  /**
   * Remembers that `block`, which is held, holds the `index`-th full block of `key`, after `parent`. Equal
   * content in another block is kept beside it, not merged, as long as both are held: a block table never
   * changes for it. A block that two tables share may be offered twice.
   */
  insert(parent: PrefixNode | undefined, key: PrefixKey, index: number, block: number): PrefixNode {
    const node = this.#tree.addFull(parent, key, index);
    if (this.#nodeOfBlock[block] === node) return node;
    if (node.blocks.length === 0) this.#supersedeTails(node);
    const [other] = node.blocks;
    if (other !== undefined && this.#isFree(other)) {
      this.#removeBlock(other);
      this.#onRankChange([other]);
    }
    this.#addBlock(node, block);
    this.setSuperseded(node, false);
    return node;
  }

  /**
   * Remembers that `block`, which nobody is going to write, holds tokens [start, end) of `key` after
   * `parent`: fewer than a block. If another block holds these and perhaps more, that one is taken for
   * just used instead.
   */
  insertTail(
    parent: PrefixNode | undefined,
    key: PrefixKey,
    start: number,
    end: number,
    block: number,
  ): void {
    const children = this.#childrenOf(parent, key);
    const after = children[lowerBound(children, key.tokens, start, end)];
    if (after !== undefined && !after.isSuperseded) {
      if (commonLength(after.tokens, key.tokens, start, end) === end - start) {
        this.#onRankChange(after.blocks);
        return;
      }
    }
    const node = this.#tree.addTail(parent, key, start, end);
    this.#supersedeTails(node);
    this.#addBlock(node, block);
    this.setSuperseded(node, false);
  }

  setSuperseded(node: PrefixNode, isSuperseded: boolean): void {
    if (node.isSuperseded === isSuperseded) return;
    node.isSuperseded = isSuperseded;
    this.#onRankChange(node.blocks);
  }

  /** One more (1) or one less (-1) kept prefix passes through the node. */
  addPin(node: PrefixNode, change: 1 | -1): void {
    node.numPins += change;
    if (node.numPins === (change === 1 ? 1 : 0)) this.#onRankChange(node.blocks);
  }

  evict(block: number): void {
    const node = this.#removeBlock(block);
    this.#numEvictions += 1;
    const isLost = node.blocks.length === 0;
    if (isLost) {
      if (node.pin !== undefined) this.#onPinLost(node.pin);
      this.#tree.remove(node);
    }
    this.#onEviction?.(block, isLost ? node.tokens.length : 0);
  }

  /** A duplicate that nobody holds is of no use. The other is taken for just used in its place. */
  letGo(block: number): void {
    const node = this.#nodeOfBlock[block];
    if (node === undefined || node.blocks.length === 1) return;
    this.#removeBlock(block);
    this.#onRankChange(node.blocks);
  }

  /** Forgets every prefix, because the K and V are gone or cannot be trusted. */
  clear(): void {
    for (const node of this.#nodeOfBlock) if (node !== undefined) node.blocks.length = 0;
    this.#tree.clear();
    this.#nodeOfBlock.fill(undefined);
    this.#numBlocks = 0;
  }

  /** Throws `internal` unless nodes, blocks and ranks agree and every node's parent is cached too. */
  checkIntegrity(): void {
    let numBlocks = 0;
    for (const node of this.#tree.checkIntegrity()) {
      this.#checkNode(node);
      numBlocks += node.blocks.length;
    }
    const marked = this.#nodeOfBlock.filter((node) => node !== undefined).length;
    invariant(
      numBlocks === this.#numBlocks && marked === this.#numBlocks,
      `The prefix cache lists ${numBlocks} KV blocks, ${marked} are marked, its count says ${this.#numBlocks}.`,
    );
  }

  #checkNode(node: PrefixNode): void {
    const { blocks, children, isSuperseded, numPins, pin } = node;
    invariant(blocks.length > 0, "A prefix without a KV block is still in the cache.");
    for (const [place, block] of blocks.entries()) {
      const agrees = this.#nodeOfBlock[block] === node && this.#placeInNode[block] === place;
      invariant(agrees, `The prefix cache points to KV block ${block}, which is not its own.`);
    }
    const goesOn = children.some((child) => !child.isSuperseded);
    invariant(
      !isSuperseded || !goesOn,
      `The prefix of KV block ${blocks[0]} is superseded but goes on.`,
    );
    const numChildPins = children.reduce((sum, child) => sum + child.numPins, 0);
    invariant(
      numPins === numChildPins + (pin === undefined ? 0 : 1),
      `The prefix of KV block ${blocks[0]} has ${numPins} pins, those after it ${numChildPins}.`,
    );
  }

  #childrenOf(parent: PrefixNode | undefined, key: PrefixKey): readonly PrefixNode[] {
    return (parent ?? this.#tree.root(key.prefixScope))?.children ?? [];
  }

  /** Tails that `node` begins with say nothing that it does not. They come right before it. */
  #supersedeTails(node: PrefixNode): void {
    const { children } = node.parent!;
    const place = lowerBound(children, node.tokens, 0, node.tokens.length);
    for (let i = place - 1; i >= 0; i--) {
      const tail = children[i]!;
      if (commonLength(tail.tokens, node.tokens) < tail.tokens.length) return;
      this.setSuperseded(tail, true);
    }
  }

  #removeBlock(block: number): PrefixNode {
    const node = this.#nodeOfBlock[block];
    invariant(node !== undefined, `KV block ${block} is evicted but holds no prefix.`);
    const place = this.#placeInNode[block]!;
    const moved = node.blocks.pop()!;
    if (moved !== block) {
      node.blocks[place] = moved;
      this.#placeInNode[moved] = place;
    }
    this.#nodeOfBlock[block] = undefined;
    this.#numBlocks -= 1;
    return node;
  }

  #addBlock(node: PrefixNode, block: number): void {
    invariant(this.#nodeOfBlock[block] === undefined, `KV block ${block} is cached twice.`);
    this.#nodeOfBlock[block] = node;
    this.#placeInNode[block] = node.blocks.length;
    this.#writtenIn[block] = this.stepId;
    node.blocks.push(block);
    this.#numBlocks += 1;
  }
}

/** False for what was evicted, or was in the cache before it was cleared. */
function isCached({ blocks }: PrefixNode): boolean {
  return blocks.length > 0;
}
