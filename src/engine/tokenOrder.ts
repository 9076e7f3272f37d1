/** Something that stands for a list of tokens and is kept in order among others. */
export interface TokenRun {
  readonly tokens: readonly number[];
}

/** Number of leading tokens that `own` shares with tokens [start, end). */
export function commonLength(
  own: readonly number[],
  tokens: readonly number[],
  start = 0,
  end = tokens.length,
): number {
  const length = Math.min(own.length, end - start);
  for (let i = 0; i < length; i++) if (own[i] !== tokens[start + i]) return i;
  return length;
}

/**
 * Place of the first of `runs` that does not come before tokens [start, end), in lexicographic order, a
 * prefix before what it begins. The runs that share the most leading tokens with them are its neighbours.
 */
export function lowerBound(
  runs: readonly TokenRun[],
  tokens: readonly number[],
  start: number,
  end: number,
): number {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(runs[middle]!.tokens, tokens, start, end)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function isBefore(
  own: readonly number[],
  tokens: readonly number[],
  start: number,
  end: number,
): boolean {
  const common = commonLength(own, tokens, start, end);
  if (start + common === end) return false;
  return common === own.length || own[common]! < tokens[start + common]!;
}
