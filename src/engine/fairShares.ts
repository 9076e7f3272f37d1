/**
 * Splits `total` rows among takers who want so many each: everyone gets an equal share, and what somebody
 * does not need goes to the others (max-min fairness). What is left after equal division goes to the first.
 * `wants` and the result: [takers].
 */
export function fairShares(wants: readonly number[], total: number): number[] {
  const shares = new Array<number>(wants.length).fill(0);
  const order = wants.map((_, i) => i).sort((a, b) => wants[a]! - wants[b]! || b - a);
  let left = total;
  for (const [place, taker] of order.entries()) {
    const share = Math.min(wants[taker]!, Math.floor(left / (order.length - place)));
    shares[taker] = share;
    left -= share;
  }
  for (let i = 0; i < wants.length && left > 0; i++) {
    const more = Math.min(left, wants[i]! - shares[i]!);
    shares[i]! += more;
    left -= more;
  }
  return shares;
}
