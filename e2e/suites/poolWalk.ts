import { expect } from "vitest";
import { GREEDY } from "../../src/engine/sampling.ts";
import type { BlockCopy, BlockSwap } from "../../src/engine/step.ts";
import { invariant } from "../../src/errors.ts";
import type { SequenceRows } from "../fixtures/drivePlan.ts";
import { Random } from "../fixtures/random.ts";
import type { PoolDriver } from "./poolDriver.ts";

export interface WalkOptions {
  readonly driver: PoolDriver;
  readonly blockSize: number;
  /** At least 16. */
  readonly numBlocks: number;
  readonly numHostBlocks: number;
  /** Samples and copies that a step may have. */
  readonly maxSequences: number;
  readonly vocabularySize: number;
  readonly seed: number;
}

const NUM_SCRIPTS = 4;
const NUM_STEPS = 70;
/** Few, so that blocks change hands often; the last is the filler's. */
const NUM_WALK_BLOCKS = 16;

/** One of the token lists, and where its K and V are now. */
interface Walker {
  readonly slot: number;
  readonly tokens: readonly number[];
  /** Logits from the end of the common prefix on, alone. */
  readonly expected: readonly Uint32Array[];
  state: "absent" | "resident" | "swapped";
  table: number[]; // blocks, or while it is swapped host blocks
  numComputed: number;
  mustReset: boolean;
}

/**
 * Sequences with a common prefix come, fork, share and copy blocks, move about in the pool and out of it
 * and in again, at random; each row's logits must be the bits that the sequence gets alone.
 */
export async function walkPool(options: WalkOptions): Promise<void> {
  const { driver, blockSize, maxSequences, vocabularySize } = options;
  const random = new Random(options.seed);
  const chance = (percent: number): boolean => random.integer(0, 99) < percent;
  const randomTokens = (count: number): number[] =>
    Array.from({ length: count }, () => random.integer(3, vocabularySize - 1));
  const prefix = randomTokens(1.5 * blockSize);
  const walkers: Walker[] = [];
  for (let slot = 0; slot < NUM_SCRIPTS; slot++) {
    const tokens = [...prefix, ...randomTokens(blockSize + 3)];
    const expected = await logitsAlone(driver, tokens, prefix.length);
    walkers.push({
      slot,
      tokens,
      expected,
      state: "absent",
      table: [],
      numComputed: 0,
      mustReset: true,
    });
  }

  const filler = NUM_WALK_BLOCKS - 1;
  const references = new Array<number>(NUM_WALK_BLOCKS).fill(0);
  references[filler] = 1;
  const hostInUse = new Set<number>();
  const counts = { forks: 0, copies: 0, swapOuts: 0, swapIns: 0, releases: 0, drafts: 0, ends: 0 };

  for (let step = 0; step < NUM_STEPS; step++) {
    const swapOuts: BlockSwap[] = [];
    const swapIns: BlockSwap[] = [];
    const hostReleases: number[] = [];
    const copies: BlockCopy[] = [];
    const atEnd: (() => void)[] = []; // what becomes free with this step is not taken in it
    const release = (block: number) => references[block]!--;
    const takeBlock = (): number | undefined => {
      const free = [...references.keys()].filter((block) => references[block] === 0);
      if (free.length === 0) return undefined;
      const block = free[random.integer(0, free.length - 1)]!;
      references[block] = 1;
      return block;
    };
    const takeHostBlock = (): number => {
      const all = Array.from({ length: options.numHostBlocks }, (_, i) => i);
      const host = all.filter((i) => !hostInUse.has(i)).at(random.integer(0, 3));
      invariant(host !== undefined, "There are host blocks for all.");
      hostInUse.add(host);
      return host;
    };
    /** The table's entry becomes a private copy. False if it can't now. */
    const moveBlock = (walker: Walker, index: number): boolean => {
      const source = walker.table[index]!;
      const isTarget = copies.some(({ target }) => target === source);
      if (isTarget || copies.length === maxSequences) return false;
      const target = takeBlock();
      if (target === undefined) return false;
      walker.table[index] = target;
      copies.push({ source, target });
      atEnd.push(() => release(source));
      return true;
    };

    for (const walker of walkers) {
      if (walker.state !== "resident" || !chance(12)) continue;
      const hosts = walker.table.map((block) => ({ block, hostBlock: takeHostBlock() }));
      swapOuts.push(...hosts);
      // Others may take the blocks in this very step.
      walker.table.forEach(release);
      walker.table = hosts.map(({ hostBlock }) => hostBlock);
      walker.state = "swapped";
    }
    const justSwapped = new Set(swapOuts.map(({ hostBlock }) => hostBlock));
    for (const walker of walkers) {
      const { table, state } = walker;
      if (state !== "swapped" || justSwapped.has(table[0]!) || !chance(40)) continue;
      if (chance(30)) {
        // It has ended, and nobody needs what the host has of it.
        hostReleases.push(...table);
        atEnd.push(() => {
          for (const hostBlock of table) hostInUse.delete(hostBlock);
        });
        Object.assign(walker, { state: "absent", table: [], numComputed: 0 });
        continue;
      }
      if (references.filter((count) => count === 0).length < table.length) continue;
      walker.table = table.map((hostBlock) => {
        const block = takeBlock()!;
        swapIns.push({ block, hostBlock });
        atEnd.push(() => hostInUse.delete(hostBlock));
        return block;
      });
      Object.assign(walker, { state: "resident", mustReset: true });
    }
    for (const walker of walkers) {
      if (walker.state !== "absent" || !chance(50)) continue;
      const sources = walkers.filter(
        ({ state, numComputed }) => state === "resident" && numComputed >= prefix.length,
      );
      const source = chance(80) ? sources[random.integer(0, sources.length - 1)] : undefined;
      if (source) {
        walker.table = source.table.slice(0, Math.ceil(prefix.length / blockSize));
        for (const block of walker.table) references[block]!++;
        counts.forks += 1;
      }
      const numComputed = source ? prefix.length : 0;
      Object.assign(walker, { state: "resident", mustReset: true, numComputed });
    }

    const rows: SequenceRows[] = [{ slot: 5, tokens: [step], start: 0, blocks: [filler] }];
    const sampled: { readonly walker: Walker; readonly position: number }[] = [];
    for (const walker of walkers) {
      const { slot, tokens, table, numComputed: start } = walker;
      if (walker.state !== "resident" || chance(15)) continue;
      if (table.length > 0 && copies.length < 2 && chance(30)) {
        moveBlock(walker, random.integer(0, table.length - 1));
      }
      // The prefix in large chunks, what follows in rows that are all looked at.
      const most = start < prefix.length ? prefix.length - start : tokens.length - start;
      const count = Math.min(most, start < prefix.length ? blockSize : random.integer(1, 4));
      if (!makeRoom(walker, count)) continue;
      const left = maxSequences - sampled.length;
      const numSampled = start < prefix.length ? 0 : Math.min(left, count);
      rows.push({
        slot,
        tokens: tokens.slice(start, start + count),
        start,
        blocks: [...table],
        ...(walker.mustReset ? { reset: GREEDY } : {}),
        ...(numSampled > 0 ? { isSampled: true, numDrafts: numSampled - 1 } : {}),
      });
      walker.mustReset = false;
      walker.numComputed += count;
      for (let i = numSampled; i > 0; i--) {
        sampled.push({ walker, position: walker.numComputed - i });
      }
      counts.drafts += Math.max(0, numSampled - 1);
      if (walker.numComputed < tokens.length) continue;
      counts.ends += 1;
      const blocks = [...table];
      atEnd.push(() => blocks.forEach(release));
      Object.assign(walker, { state: "absent", table: [], numComputed: 0 });
    }

    counts.copies += copies.length;
    counts.swapOuts += swapOuts.length;
    counts.swapIns += swapIns.length;
    counts.releases += hostReleases.length;
    const { logits } = await driver.run(rows, { hostReleases, swapOuts, swapIns, copies });
    for (const [i, { walker, position }] of sampled.entries()) {
      const wanted = walker.expected[position - prefix.length];
      expect(logits[i], `step ${step}, slot ${walker.slot}, ${position}`).toEqual(wanted);
    }
    for (const end of atEnd) end();
    expect(driver.plan.memory.swapped).toBe(hostInUse.size * driver.plan.blockBytes);

    /** Blocks for the next `count` rows, none of them anybody else's. */
    function makeRoom(walker: Walker, count: number): boolean {
      const { table, numComputed } = walker;
      const first = Math.floor(numComputed / blockSize);
      const last = Math.floor((numComputed + count - 1) / blockSize);
      for (let index = first; index <= last; index++) {
        const block = table[index];
        if (block === undefined) {
          const taken = takeBlock();
          if (taken === undefined) return false;
          table.push(taken);
        } else if (references[block]! > 1 && !moveBlock(walker, index)) return false;
      }
      return true;
    }
  }
  for (const [kind, count] of Object.entries(counts)) expect(count, kind).toBeGreaterThan(3);
}

/** Logits of the rows from `first` on, one row a step, with nothing moved and nobody else. */
async function logitsAlone(
  driver: PoolDriver,
  tokens: readonly number[],
  first: number,
): Promise<readonly Uint32Array[]> {
  const own = { slot: 0, blocks: [0, 1, 2] };
  await driver.run([{ ...own, tokens: tokens.slice(0, first), start: 0 }]);
  const logits: Uint32Array[] = [];
  for (let start = first; start < tokens.length; start++) {
    const row = { ...own, tokens: [tokens[start]!], start, isSampled: true };
    logits.push(...(await driver.run([row])).logits);
  }
  return logits;
}
