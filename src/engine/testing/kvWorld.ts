import { expect } from "vitest";
import { HostBlocks } from "../hostBlocks.ts";
import { KvCache } from "../kvCache.ts";
import { GREEDY } from "../sampling.ts";
import { Sequence } from "../sequence.ts";
import type { BlockSwap } from "../step.ts";
import type { TokenHash } from "../tokenHash.ts";

export interface KvWorldOptions {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly numHostBlocks?: number;
  readonly hash?: TokenHash;
}

export interface SequenceFields {
  readonly requestId?: number;
  readonly index?: number;
  readonly salt?: string;
  readonly adapterId?: string | null;
  readonly promptLogprobs?: number;
}

interface Row {
  readonly kvSlot: number;
  readonly value: string;
}

/**
 * A `KvCache` with the memory that it manages: each place holds the text of all tokens up to it, so that
 * a wrong block, a late copy or a false hit is seen. Steps are run as `Step` says: swap-outs, swap-ins,
 * copies, rows.
 */
export class KvWorld {
  readonly kvCache: KvCache;
  readonly hostBlocks: HostBlocks;
  readonly sequences = new Set<Sequence>();
  /** Sequences with rows, a copy or a swap in the present step: they stay until it is complete. */
  readonly inStep = new Set<Sequence>();
  readonly evictions: (readonly [block: number, numTokens: number])[] = [];
  clockMs = 0;
  /** Copies of the last step. */
  numCopies = 0;
  isScheduling = false;
  readonly #blockSize: number;
  readonly #memory: string[]; // [numBlocks * blockSize]
  readonly #hostMemory: string[]; // [numHostBlocks * blockSize]
  #stepId = 0;
  #numSequences = 0;
  #rows: Row[] = [];
  #swapOuts: BlockSwap[] = [];
  #swapIns: BlockSwap[] = [];

  constructor(options: KvWorldOptions) {
    const { numBlocks, blockSize, numHostBlocks = 0, hash } = options;
    this.#blockSize = blockSize;
    this.#memory = new Array<string>(numBlocks * blockSize).fill("garbage");
    this.#hostMemory = new Array<string>(numHostBlocks * blockSize).fill("garbage");
    this.hostBlocks = new HostBlocks(numHostBlocks);
    this.kvCache = new KvCache({
      numBlocks,
      blockSize,
      now: () => this.clockMs,
      ...(hash && { hash }),
      onEviction: (block, numTokens) => this.evictions.push([block, numTokens]),
    });
  }

  create(promptTokens: readonly number[], fields: SequenceFields = {}): Sequence {
    const arrival = this.#numSequences++;
    const { requestId = arrival, index = 0, salt = "", adapterId = null, promptLogprobs } = fields;
    const sequence = new Sequence({
      requestId,
      index,
      arrival,
      promptTokens,
      maxTokens: 1000,
      stopTokens: new Set(),
      promptLogprobs,
      sampling: GREEDY,
      prefixScope: { salt, adapterId },
    });
    this.sequences.add(sequence);
    return sequence;
  }

  /** A step is being scheduled from now on. */
  begin(): void {
    if (this.isScheduling) return;
    this.isScheduling = true;
    this.#stepId += 1;
    this.kvCache.beginStep(this.#stepId);
  }

  admit(sequence: Sequence, reserveBlocks = 0): boolean {
    this.begin();
    const { pool } = this.kvCache;
    const before = pool.freeBlocks();
    const cached = this.kvCache.cachedTokens(sequence);
    const isAdmitted = this.kvCache.admit(sequence, reserveBlocks);
    if (isAdmitted) {
      expect(pool.numFree).toBeGreaterThanOrEqual(reserveBlocks);
      expect(sequence.numComputedTokens).toBeLessThanOrEqual(cached);
      expect(sequence.blockTable).toHaveLength(Math.ceil(sequence.numTokens / this.#blockSize));
    } else {
      expect(pool.freeBlocks()).toEqual(before);
      expect(sequence.blockTable).toEqual([]);
    }
    return isAdmitted;
  }

  /** Rows for the next `count` tokens; `numDrafts` more of which `numAccepted` are right. */
  compute(sequence: Sequence, count: number, numDrafts = 0, numAccepted = 0): boolean {
    this.begin();
    const { blockTable, numComputedTokens } = sequence;
    const before = [...blockTable];
    if (!this.kvCache.reserve(sequence, count + numDrafts)) {
      expect(blockTable).toEqual(before);
      return false;
    }
    const end = numComputedTokens + count + numDrafts;
    for (let position = numComputedTokens; position < end; position++) {
      const block = blockTable[Math.floor(position / this.#blockSize)]!;
      expect(this.#holders(block)).toBe(1);
      const isRight = position < numComputedTokens + count + numAccepted;
      this.#rows.push({
        kvSlot: block * this.#blockSize + (position % this.#blockSize),
        value: isRight ? contentOf(sequence, position) : "a rejected draft",
      });
    }
    sequence.numComputedTokens = end;
    this.kvCache.cacheFullBlocks(sequence);
    this.inStep.add(sequence);
    return true;
  }

  swapOut(sequence: Sequence): boolean {
    this.begin();
    const swaps = this.kvCache.swapOut(sequence, this.hostBlocks);
    if (swaps === undefined) return false;
    this.#swapOuts.push(...swaps);
    sequence.numPendingTokens = 0;
    return true;
  }

  swapIn(sequence: Sequence): boolean {
    this.begin();
    // The host has them only after the step that swaps out.
    if (sequence.swapped!.stepId === this.#stepId) return false;
    const swaps = this.kvCache.swapIn(sequence);
    if (swaps === undefined) return false;
    this.#swapIns.push(...swaps);
    this.inStep.add(sequence);
    return true;
  }

  /** Back to waiting; its tokens are kept. */
  release(sequence: Sequence): void {
    this.kvCache.release(sequence);
    sequence.numPendingTokens = 0;
  }

  finish(sequence: Sequence): void {
    this.release(sequence);
    this.kvCache.dropSwapped(sequence);
    this.sequences.delete(sequence);
  }

  /** The step is complete and runs. */
  end(): void {
    this.begin();
    const copies = this.kvCache.takeCopies();
    const sources = new Set(copies.map(({ source }) => source));
    const targets = [...copies.map(({ target }) => target), ...this.#swapIns.map((s) => s.block)];
    expect(new Set(targets).size).toBe(targets.length);
    expect(copies.filter(({ target }) => sources.has(target))).toEqual([]);
    const out = new Set(this.#swapOuts.map(({ hostBlock }) => hostBlock));
    expect(this.#swapIns.filter(({ hostBlock }) => out.has(hostBlock))).toEqual([]);
    for (const { block, hostBlock } of this.#swapOuts) {
      this.#copy(this.#memory, block, this.#hostMemory, hostBlock);
    }
    for (const { block, hostBlock } of this.#swapIns) {
      this.#copy(this.#hostMemory, hostBlock, this.#memory, block);
    }
    for (const { source, target } of copies) {
      this.#copy(this.#memory, source, this.#memory, target);
    }
    const written = new Set(this.#rows.map(({ kvSlot }) => kvSlot));
    expect(written.size).toBe(this.#rows.length);
    for (const { kvSlot, value } of this.#rows) this.#memory[kvSlot] = value;
    this.numCopies = copies.length;
    this.#rows = [];
    this.#swapOuts = [];
    this.#swapIns = [];
    this.inStep.clear();
    this.isScheduling = false;
  }

  /** Every sequence finds what it computed. Only between steps, with drafts truncated. */
  checkContents(): void {
    for (const sequence of this.sequences) {
      const { blockTable, numComputedTokens, swapped } = sequence;
      for (let position = 0; position < numComputedTokens; position++) {
        const content = this.#read(this.#memory, blockTable, position);
        expect(content).toBe(contentOf(sequence, position));
      }
      for (let position = 0; position < (swapped?.numComputedTokens ?? 0); position++) {
        const content = this.#read(this.#hostMemory, swapped!.blocks, position);
        expect(content).toBe(contentOf(sequence, position));
      }
    }
  }

  checkIntegrity(): void {
    for (const sequence of this.sequences) this.#checkRemembered(sequence);
    this.kvCache.checkIntegrity(this.sequences);
    this.hostBlocks.checkIntegrity(this.sequences);
  }

  /** What a sequence remembers of earlier lookups changes none of their answers. */
  #checkRemembered(sequence: Sequence): void {
    const { kvCache } = this;
    const { lastHit, lastHeld } = sequence;
    const look = () => [kvCache.cachedTokens(sequence), kvCache.blocksNeeded(sequence)];
    const remembered = look();
    sequence.lastHit = sequence.lastHeld = undefined;
    expect(look()).toEqual(remembered);
    // As before: an answer may be asked for after many changes.
    Object.assign(sequence, { lastHit, lastHeld });
  }

  /** Admits the sequence, computes all its tokens in a step of its own; the tokens that it did not find. */
  run(sequence: Sequence): number {
    expect(this.admit(sequence)).toBe(true);
    const numMissing = sequence.numMissingTokens;
    expect(this.compute(sequence, numMissing)).toBe(true);
    this.end();
    this.checkContents();
    this.checkIntegrity();
    return numMissing;
  }

  /** A request that comes and goes: its prompt is cached afterwards. */
  visit(tokens: readonly number[], fields?: SequenceFields): number {
    const sequence = this.create(tokens, fields);
    const numComputed = this.run(sequence);
    this.finish(sequence);
    this.checkIntegrity();
    return numComputed;
  }

  #holders(block: number): number {
    let count = 0;
    for (const { blockTable } of this.sequences) if (blockTable.includes(block)) count += 1;
    return count;
  }

  #read(memory: readonly string[], table: readonly number[], position: number): string | undefined {
    const block = table[Math.floor(position / this.#blockSize)]!;
    return memory[block * this.#blockSize + (position % this.#blockSize)];
  }

  #copy(from: readonly string[], source: number, to: string[], target: number): void {
    for (let i = 0; i < this.#blockSize; i++) {
      to[target * this.#blockSize + i] = from[source * this.#blockSize + i]!;
    }
  }
}

/** The token that a sequence says at a position, known to the host or not yet. */
export function tokenAt(sequence: Sequence, position: number): number {
  return sequence.tokens[position] ?? (sequence.arrival * 7 + position * position) % 3;
}

function contentOf(sequence: Sequence, position: number): string {
  const { salt, adapterId } = sequence.prefixScope;
  const tokens = Array.from({ length: position + 1 }, (_, i) => tokenAt(sequence, i));
  return `${salt}/${adapterId}: ${tokens.join()}`;
}

/** `count` different tokens, starting with `first`. */
export function tokens(count: number, first = 0): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
