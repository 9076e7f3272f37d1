import { invariant } from "../errors.ts";
import type { PrefixKey, PrefixNode, PrefixScope } from "./prefixNode.ts";
import type { TokenHash } from "./tokenHash.ts";
import { commonLength, lowerBound } from "./tokenOrder.ts";

const ROOT_HASH = 0x51ed270b;

/**
 * Token prefixes in units of blocks, a tree for each scope. A hash chain finds full blocks; a hit needs
 * the same parent node and the same tokens, so a hash collision costs time and never serves another
 * chat's K and V. Scopes have roots of their own, so nothing is ever shared between two of them.
 */
export class PrefixTree {
  readonly blockSize: number;
  readonly #hash: TokenHash;
  readonly #roots = new Map<string | null, Map<string, PrefixNode>>(); // by adapter, then by salt
  readonly #scopes = new Map<PrefixNode, PrefixScope>(); // of the roots
  readonly #nodes = new Map<number, PrefixNode>(); // full ones, by hash

  constructor(blockSize: number, hash: TokenHash) {
    this.blockSize = blockSize;
    this.#hash = hash;
  }

  root({ adapterId, salt }: PrefixScope): PrefixNode | undefined {
    return this.#roots.get(adapterId)?.get(salt);
  }

  isTail(node: PrefixNode): boolean {
    return node.tokens.length < this.blockSize;
  }

  /** Hash of the `index`-th full block of the tokens and all before it; each is computed once. */
  hashOf({ tokens, prefixScope, blockHashes }: PrefixKey, index: number): number {
    for (let i = blockHashes.length; i <= index; i++) {
      const before = i === 0 ? this.#rootHash(prefixScope) : blockHashes[i - 1]!;
      const start = i * this.blockSize;
      blockHashes.push(this.#hash(before, tokens, start, start + this.blockSize));
    }
    return blockHashes[index]!;
  }

  /** The node of the `index`-th full block of `key`, after `parent`. */
  find(parent: PrefixNode, key: PrefixKey, index: number): PrefixNode | undefined {
    const start = index * this.blockSize;
    const end = start + this.blockSize;
    let node = this.#nodes.get(this.hashOf(key, index));
    while (node !== undefined && !(node.parent === parent && equals(node, key, start, end))) {
      node = node.sameHash;
    }
    return node;
  }

  /** That node, found or made; `parent` undefined means the root of the key's scope. */
  addFull(parent: PrefixNode | undefined, key: PrefixKey, index: number): PrefixNode {
    const from = parent ?? this.#createRoot(key.prefixScope);
    const found = this.find(from, key, index);
    if (found !== undefined) return found;
    const hash = this.hashOf(key, index);
    const start = index * this.blockSize;
    const tokens = key.tokens.slice(start, start + this.blockSize);
    const node = createNode(hash, from, tokens, this.#nodes.get(hash));
    this.#nodes.set(hash, node);
    insertChild(from, node);
    return node;
  }

  /** The node of tokens [start, end), fewer than a block, after `parent`, found or made. */
  addTail(parent: PrefixNode | undefined, key: PrefixKey, start: number, end: number): PrefixNode {
    const from = parent ?? this.#createRoot(key.prefixScope);
    const found = from.children[lowerBound(from.children, key.tokens, start, end)];
    if (found !== undefined && equals(found, key, start, end)) return found;
    const node = createNode(0, from, key.tokens.slice(start, end), undefined);
    insertChild(from, node);
    return node;
  }

  /** Takes out a node that has no children. */
  remove(node: PrefixNode): void {
    const parent = node.parent!;
    const place = lowerBound(parent.children, node.tokens, 0, node.tokens.length);
    invariant(parent.children[place] === node, "A prefix is not among its parent's children.");
    parent.children.splice(place, 1);
    if (parent.parent === undefined && parent.children.length === 0) this.#removeRoot(parent);
    if (!this.isTail(node)) this.#removeHash(node);
  }

  clear(): void {
    this.#roots.clear();
    this.#scopes.clear();
    this.#nodes.clear();
  }

  /** All nodes but the roots. Throws `internal` unless trees and hash map agree. */
  checkIntegrity(): PrefixNode[] {
    const nodes: PrefixNode[] = [];
    for (const [adapterId, bySalt] of this.#roots) {
      for (const [salt, root] of bySalt) {
        invariant(root.children.length > 0, `The scope (${salt}, ${adapterId}) is empty.`);
        checkChildren(root);
        nodes.push(...root.children);
      }
    }
    for (const node of nodes) {
      checkChildren(node);
      invariant(!this.isTail(node) || node.children.length === 0, "A tail has children.");
      nodes.push(...node.children); // visited by this loop too
    }
    const full = new Set(nodes.filter((node) => !this.isTail(node)));
    let numHashed = 0;
    for (const [hash, first] of this.#nodes) {
      for (let node: PrefixNode | undefined = first; node !== undefined; node = node.sameHash) {
        invariant(node.hash === hash, "A prefix is filed under another hash.");
        invariant(full.has(node), "A prefix is hashed that has outlived its parent.");
        numHashed += 1;
      }
    }
    invariant(full.size === numHashed, `${numHashed} prefixes of ${full.size} are hashed.`);
    return nodes;
  }

  #createRoot(scope: PrefixScope): PrefixNode {
    let root = this.root(scope);
    if (root === undefined) {
      root = createNode(this.#rootHash(scope), undefined, [], undefined);
      const bySalt = this.#roots.get(scope.adapterId) ?? new Map<string, PrefixNode>();
      bySalt.set(scope.salt, root);
      this.#roots.set(scope.adapterId, bySalt);
      this.#scopes.set(root, scope);
    }
    return root;
  }

  #removeRoot(root: PrefixNode): void {
    const { adapterId, salt } = this.#scopes.get(root)!;
    this.#scopes.delete(root);
    const bySalt = this.#roots.get(adapterId)!;
    bySalt.delete(salt);
    if (bySalt.size === 0) this.#roots.delete(adapterId);
  }

  #removeHash(node: PrefixNode): void {
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

  #rootHash({ adapterId, salt }: PrefixScope): number {
    const codes = Array.from(`${salt}\n${adapterId ?? ""}`, (character) => character.charCodeAt(0));
    return this.#hash(ROOT_HASH, codes, 0, codes.length);
  }
}

function createNode(
  hash: number,
  parent: PrefixNode | undefined,
  tokens: readonly number[],
  sameHash: PrefixNode | undefined,
): PrefixNode {
  return {
    hash,
    parent,
    tokens,
    blocks: [],
    children: [],
    sameHash,
    isSuperseded: false,
    numPins: 0,
    pin: undefined,
  };
}

function insertChild({ children }: PrefixNode, node: PrefixNode): void {
  children.splice(lowerBound(children, node.tokens, 0, node.tokens.length), 0, node);
}

function equals({ tokens }: PrefixNode, key: PrefixKey, start: number, end: number): boolean {
  const length = end - start;
  return tokens.length === length && commonLength(tokens, key.tokens, start, end) === length;
}

function checkChildren(node: PrefixNode): void {
  for (const [i, child] of node.children.entries()) {
    invariant(child.parent === node, "A prefix is the child of another.");
    const place = lowerBound(node.children, child.tokens, 0, child.tokens.length);
    invariant(place === i, "The children of a prefix are out of order.");
  }
}
