import type { KvCache } from "./kvCache.ts";
import type { MetricsSnapshot } from "./metrics.ts";
import type { Residents } from "./residents.ts";
import type { Stall } from "./watchdog.ts";

/** Counters since the engine was made, and gauges of now. */
export interface EngineStats {
  /** Sequences that are resident, and that wait; of these, with their K and V in host memory. */
  readonly running: number;
  readonly waiting: number;
  readonly swapped: number;
  /** Most sequences that run at once: slots of the back end, or rows of a step if those are fewer. */
  readonly maxSequences: number;
  /** Steps scheduled, prompt chunks included, and their rows. */
  readonly steps: number;
  readonly rows: number;
  /** Sequences put back to the queue, and of these, swapped out instead of recomputed. */
  readonly preemptions: number;
  readonly swaps: number;
  /** Computed tokens that preemptions threw away. */
  readonly tokensLost: number;
  readonly kvBlocksTotal: number;
  /** Blocks that sequences hold, now and at most so far. */
  readonly kvBlocksUsed: number;
  readonly kvBlocksPeak: number;
  /** Blocks that hold a reusable prefix, held by a sequence or not. */
  readonly kvBlocksCached: number;
  /** Of those, the free ones that are kept: evicted after all others. */
  readonly kvBlocksKept: number;
  /** Prompt tokens looked up in the prefix cache, and found; a sequence counts once. */
  readonly prefixCacheQueries: number;
  readonly prefixCacheHits: number;
  /** Prompt tokens of the requests added, once a request. */
  readonly promptTokens: number;
  /** Tokens delivered. */
  readonly generationTokens: number;
  /** Learned cost of a step: so much, and so much more a row. 0 until measured. */
  readonly msPerStep: number;
  readonly msPerRow: number;
  /** Steps that are kept in flight. */
  readonly stepsInFlight: number;
  /** Sequences that got nothing for long, longest first. */
  readonly stalled: readonly Stall[];
  /** Under vLLM's names. */
  readonly metrics: MetricsSnapshot;
}

/** What the KV pool holds for the sequences that run. */
export interface KvUsage {
  readonly blocksTotal: number;
  /** Blocks that somebody holds, each counted once. */
  readonly blocksUsed: number;
  /** Tokens with K and V in them, each counted once. */
  readonly tokensHeld: number;
  /** Tokens of preempted sequences in blocks that nobody holds at the moment. */
  readonly tokensPaused: number;
  /** Blocks and tokens as the sequences see them: shared ones count for each. */
  readonly logicalBlocks: number;
  readonly logicalTokens: number;
}

export function measureKvUsage(
  { running, paused }: Residents,
  kvCache: KvCache,
  blockSize: number,
): KvUsage {
  const filled = new Map<number, number>();
  let logicalBlocks = 0;
  let logicalTokens = 0;
  for (const { blockTable, numComputedTokens } of running) {
    logicalBlocks += blockTable.length;
    logicalTokens += numComputedTokens;
    for (const [i, block] of blockTable.entries()) {
      const tokens = Math.min(blockSize, Math.max(0, numComputedTokens - i * blockSize));
      filled.set(block, Math.max(filled.get(block) ?? 0, tokens));
    }
  }
  let tokensHeld = 0;
  for (const tokens of filled.values()) tokensHeld += tokens;
  let tokensPaused = 0;
  for (const sequence of paused) tokensPaused += kvCache.pausedTokens(sequence);
  const { numBlocks: blocksTotal, numUsed: blocksUsed } = kvCache.pool;
  return { blocksTotal, blocksUsed, tokensHeld, tokensPaused, logicalBlocks, logicalTokens };
}
