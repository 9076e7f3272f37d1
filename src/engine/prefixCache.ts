import { invariant } from "../errors.ts";
import type { CachedBlocks } from "./blockPool.ts";

/**
 * One block's worth of tokens after one particular prefix. Its identity stands for the whole prefix:
 * two nodes with equal tokens but different parents are different nodes.
 */
export interface PrefixNode {
  /** Hash of the parent's hash and the tokens: finds the node, proves nothing. */
  readonly hash: number;
  readonly parent: PrefixNode | undefined;
  /** [blockSize] */
  readonly tokens: readonly number[];
  /** Blocks that hold the K and V of these tokens after this prefix; at least one, duplicates are kept. */
  readonly blocks: number[];
  /** Next node of equal hash. */
  sameHash: PrefixNode | undefined;
}

/** Hash of tokens [start, end) after a prefix of the given hash; 32 bits. */
export type TokenHash = (
  parentHash: number,
  tokens: readonly number[],
  start: number,
  end: number,
) => number;

const ROOT_HASH = 0x51ed270b;

/**
 * Which full blocks hold which token prefix. A hash chain finds candidates; a hit needs the same parent
 * node and the same tokens, so a hash collision costs time and never serves another chat's K and V.
 *
 * Sequences hold whole chains and release them tail first, so a node is never evicted before its
 * children: every node's parent is in the cache as long as the node is.
 */
export class PrefixCache implements CachedBlocks {
  readonly #blockSize: number;
  readonly #hash: TokenHash;
  readonly #nodes = new Map<number, PrefixNode>();
  readonly #nodeOfBlock: (PrefixNode | undefined)[]; // [numBlocks]
  readonly #placeInNode: Int32Array; // [numBlocks]: index of the block in its node's blocks
  #numBlocks = 0;

  constructor(numBlocks: number, blockSize: number, hash: TokenHash = hashTokens) {
    this.#blockSize = blockSize;
    this.#hash = hash;
    this.#nodeOfBlock = new Array<PrefixNode | undefined>(numBlocks).fill(undefined);
    this.#placeInNode = new Int32Array(numBlocks);
  }

  /** Blocks that hold a reusable prefix, whether a sequence holds them or not. */
  get numBlocks(): number {
    return this.#numBlocks;
  }

  has(block: number): boolean {
    return this.#nodeOfBlock[block] !== undefined;
  }

  /** Nodes of the longest cached prefix of `tokens`, at most `maxBlocks` blocks of it. */
  find(tokens: readonly number[], maxBlocks: number): PrefixNode[] {
    const found: PrefixNode[] = [];
    let parent: PrefixNode | undefined;
    while (found.length < maxBlocks) {
      const start = found.length * this.#blockSize;
      const node = this.#child(parent, this.#hashAfter(parent, tokens, start), tokens, start);
      if (node === undefined) break;
      found.push(node);
      parent = node;
    }
    return found;
  }

  /**
   * Remembers that `block` holds the full block of tokens at `start`, after `parent`. Equal content in
   * another block is kept beside it, not merged: block tables only ever grow.
   */
  insert(
    parent: PrefixNode | undefined,
    tokens: readonly number[],
    start: number,
    block: number,
  ): PrefixNode {
    invariant(!this.has(block), `KV block ${block} is cached twice.`);
    const hash = this.#hashAfter(parent, tokens, start);
    let node = this.#child(parent, hash, tokens, start);
    if (node === undefined) {
      const sameHash = this.#nodes.get(hash);
      const own = tokens.slice(start, start + this.#blockSize);
      node = { hash, parent, tokens: own, blocks: [], sameHash };
      this.#nodes.set(hash, node);
    }
    this.#nodeOfBlock[block] = node;
    this.#placeInNode[block] = node.blocks.length;
    node.blocks.push(block);
    this.#numBlocks += 1;
    return node;
  }

  evict(block: number): void {
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
    if (node.blocks.length === 0) this.#removeNode(node);
  }

  /** Forgets every prefix, because the K and V are gone or cannot be trusted. */
  clear(): void {
    this.#nodes.clear();
    this.#nodeOfBlock.fill(undefined);
    this.#numBlocks = 0;
  }

  /** Throws `internal` unless the map and the blocks agree and every node's parent is cached too. */
  checkIntegrity(): void {
    let numBlocks = 0;
    for (const [hash, first] of this.#nodes) {
      for (let node: PrefixNode | undefined = first; node !== undefined; node = node.sameHash) {
        invariant(node.hash === hash, "A prefix is filed under another hash.");
        invariant(node.blocks.length > 0, "A prefix without a KV block is still in the cache.");
        const { parent } = node;
        invariant(
          parent === undefined || this.#nodeOfBlock[parent.blocks[0] ?? -1] === parent,
          `The prefix of KV block ${node.blocks[0]} outlived its parent.`,
        );
        for (const [place, block] of node.blocks.entries()) {
          const agrees = this.#nodeOfBlock[block] === node && this.#placeInNode[block] === place;
          invariant(agrees, `The prefix cache points to KV block ${block}, which is not its own.`);
        }
        numBlocks += node.blocks.length;
      }
    }
    const flagged = this.#nodeOfBlock.filter((node) => node !== undefined).length;
    invariant(
      numBlocks === this.#numBlocks && flagged === this.#numBlocks,
      `The prefix cache lists ${numBlocks} KV blocks, ${flagged} are marked, its count says ${this.#numBlocks}.`,
    );
  }

  #hashAfter(parent: PrefixNode | undefined, tokens: readonly number[], start: number): number {
    return this.#hash(parent?.hash ?? ROOT_HASH, tokens, start, start + this.#blockSize);
  }

  #child(
    parent: PrefixNode | undefined,
    hash: number,
    tokens: readonly number[],
    start: number,
  ): PrefixNode | undefined {
    let node = this.#nodes.get(hash);
    while (node !== undefined && !(node.parent === parent && matches(node.tokens, tokens, start))) {
      node = node.sameHash;
    }
    return node;
  }

  #removeNode(node: PrefixNode): void {
    const first = this.#nodes.get(node.hash)!;
    if (first === node) {
      if (node.sameHash === undefined) this.#nodes.delete(node.hash);
      else this.#nodes.set(node.hash, node.sameHash);
      return;
    }
    let before = first;
    while (before.sameHash !== node) before = before.sameHash!;
    before.sameHash = node.sameHash;
  }
}

function matches(own: readonly number[], tokens: readonly number[], start: number): boolean {
  for (let i = 0; i < own.length; i++) {
    if (own[i] !== tokens[start + i]) return false;
  }
  return true;
}

/** Multiply-xorshift over the tokens: cheap and spread well enough, since hits are verified. */
export function hashTokens(
  parentHash: number,
  tokens: readonly number[],
  start: number,
  end: number,
): number {
  let hash = parentHash;
  for (let i = start; i < end; i++) {
    hash = (Math.imul(hash ^ (hash >>> 15), 0x5bd1e995) + tokens[i]!) | 0;
  }
  return hash;
}
