/** Hash of tokens [start, end) after a prefix of the given hash; 32 bits. */
export type TokenHash = (
  parentHash: number,
  tokens: readonly number[],
  start: number,
  end: number,
) => number;

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
