import { invariant } from "../errors.ts";
import type { PrefixCache } from "./prefixCache.ts";
import type { PrefixNode } from "./prefixNode.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Throws `internal` unless the sequence's table has room for what is computed, begins with the chain of
 * its cached blocks, and has no cached block where the sequence may still write.
 */
export function checkTable(sequence: Sequence, prefixes: PrefixCache, blockSize: number): void {
  const { blockTable, numComputedTokens, numHashedBlocks, swapped, tokens } = sequence;
  const name = `Sequence ${sequence.index} of request ${sequence.requestId}`;
  invariant(
    blockTable.length === 0 || swapped === undefined,
    `${name} is swapped out and holds KV blocks.`,
  );
  const numKnown = Math.min(numComputedTokens, tokens.length);
  invariant(
    numComputedTokens <= blockTable.length * blockSize && numHashedBlocks * blockSize <= numKnown,
    `${name} has ${numComputedTokens} computed tokens, ${numHashedBlocks} cached blocks and ${blockTable.length} blocks.`,
  );
  let node: PrefixNode | undefined;
  for (const [i, block] of blockTable.entries()) {
    const own = prefixes.nodeOf(block);
    if (i < numHashedBlocks) {
      const follows = i === 0 ? own?.parent?.parent === undefined : own?.parent === node;
      const start = i * blockSize;
      const isSame = own?.tokens.every((token, offset) => token === tokens[start + offset]);
      invariant(follows && isSame, `${name} has another prefix than KV block ${block}.`);
      node = own;
    } else if ((i + 1) * blockSize > numComputedTokens) {
      invariant(own === undefined, `${name} may write to KV block ${block}, which is cached.`);
    }
  }
  invariant(sequence.prefix === node, `${name} has another prefix than its KV blocks.`);
}
