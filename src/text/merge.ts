/** A pair that may be merged. The lowest rank goes first; among equal ranks, the leftmost pair. */
export type Merge = readonly [left: string, right: string, rank: number];
