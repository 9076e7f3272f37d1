import { invariant } from "../../errors.ts";
import { BeamParents } from "../beamParents.ts";
import { type CostModel, copyMs, hostCopyMs, stepMs } from "../costModel.ts";
import { emptyTable, PagedPool, type SwappedTables, type Table } from "../pagedPool.ts";
import { createRandom, type Random } from "../random.ts";
import { RequestQueue } from "../requestQueue.ts";
import { type KvUsage, noKvUsage, type Progress, type System } from "../system.ts";
import type { LabRequest, SharedPrefix } from "../workloads.ts";
import { MAX_BATCHED_TOKENS, MAX_SEQUENCES } from "./limits.ts";

/** The paged attention kernel's time over a contiguous one's: the paper measured 1.20 to 1.26. */
export const PAGED_KERNEL_FACTOR = 1.23;

/** Part of the blocks that stays free when a request is admitted. */
const WATERMARK = 0.01;

/** Who gives way when blocks run out. The paper: the latest arrival. */
export type VictimRule = "latest" | "least-computed" | "most-computed" | "random";

export interface VllmOptions {
  readonly model: CostModel;
  readonly seed: number;
  /** Default 16. */
  readonly blockSize?: number;
  /** How a preempted request comes back. "paper": recompute one sequence, swap several. Default "paper". */
  readonly recovery?: "paper" | "recompute" | "swap";
  /** Default "latest". */
  readonly victim?: VictimRule;
  /** How many waiting requests that do not fit may be passed over in a step. Default 0, as in the paper. */
  readonly maxPassedOver?: number;
  /** Whether the provider has reserved the requests' shared prefixes. Default true. */
  readonly reservesPrefixes?: boolean;
}

interface Group {
  readonly request: LabRequest;
  tables: Table[];
  /** Tokens that each sequence has got. */
  generated: number;
  swapped: SwappedTables | undefined;
}

/**
 * vLLM as the paper has it: paged K and V with copy-on-write, no prefix cache but prefixes that the
 * provider reserved. Every step goes over the running requests in order of arrival and takes the latest
 * one's blocks where a block lacks; then it swaps in, and admits only if nobody is swapped out and nobody
 * was preempted. Prompts are computed whole, beside the others' next tokens.
 */
export class Vllm implements System {
  readonly id = "vllm";
  batchSize = 0;
  readonly kv: KvUsage;
  /** Prompt and output tokens that were computed a second time. */
  recomputedTokens = 0;
  computedTokens = 0;
  numPreemptions = 0;

  readonly #model: CostModel;
  readonly #pool: PagedPool;
  readonly #recovery: "paper" | "recompute" | "swap";
  readonly #victim: VictimRule;
  readonly #maxPassedOver: number;
  readonly #reservesPrefixes: boolean;
  readonly #random: Random;
  readonly #beamParents: BeamParents;
  readonly #watermark: number;
  readonly #prefixes = new Map<number, Table>();
  /** In order of arrival. */
  readonly #running: Group[] = [];
  readonly #swapped: Group[] = [];
  /** To be recomputed; goes before `waiting`. In order of arrival. */
  readonly #preempted: Group[] = [];
  readonly #waiting = new RequestQueue();
  #numSequences = 0;
  #copyMs = 0;

  constructor(options: VllmOptions) {
    const { model, seed, blockSize = 16, recovery = "paper" } = options;
    this.#model = model;
    this.#pool = new PagedPool(Math.floor(model.kvSlots / blockSize), blockSize);
    this.#recovery = recovery;
    this.#victim = options.victim ?? "latest";
    this.#maxPassedOver = options.maxPassedOver ?? 0;
    this.#reservesPrefixes = options.reservesPrefixes ?? true;
    this.#watermark = Math.ceil(WATERMARK * this.#pool.numBlocks);
    this.#random = createRandom(seed, "victims");
    this.#beamParents = new BeamParents(createRandom(seed, "beams"));
    this.kv = noKvUsage(model.kvSlots);
  }

  get hasWork(): boolean {
    return this.#running.length + this.#swapped.length + this.numWaiting > 0;
  }

  get numWaiting(): number {
    return this.#waiting.size + this.#preempted.length;
  }

  add(request: LabRequest): void {
    this.#waiting.push(request);
  }

  step(_nowMs: number, progress: Progress): number {
    this.#copyMs = 0;
    const { copiedTokens } = this.#pool;
    const preemptions = this.numPreemptions;
    this.#growRunning();
    let rows = this.#numSequences;
    const wasPreempted = this.numPreemptions > preemptions;
    if (!wasPreempted) rows += this.#swapIn();
    if (!wasPreempted && this.#swapped.length === 0) rows += this.#admit(rows);
    invariant(this.#running.length > 0, "A request does not fit vLLM's pool even alone.");
    this.computedTokens += rows;
    this.#copyMs += copyMs(this.#model, this.#pool.copiedTokens - copiedTokens);
    this.#account();
    const sequences = this.#numSequences;
    const contextTokens = this.#pool.logicalTokens - this.#reservedPrefixTokens();
    this.#report(progress);
    return stepMs(this.#model, rows, sequences, contextTokens * PAGED_KERNEL_FACTOR) + this.#copyMs;
  }

  /** A slot for the next token of every running sequence, whoever must give way for it. */
  #growRunning(): void {
    for (let i = 0; i < this.#running.length; i++) {
      const group = this.#running[i]!;
      // Each of its sequences may need a block: that is checked, not whether it does.
      while (this.#pool.numFree < group.tables.length) {
        const victim = this.#chooseVictim();
        this.#preempt(victim);
        if (victim < i) i -= 1;
        if (this.#running[i] !== group) break;
      }
      if (this.#running[i] !== group) {
        i -= 1; // it has given way itself; the next one is in its place
        continue;
      }
      if (group.request.isBeam) this.#followParents(group);
      for (const table of group.tables) this.#pool.append(table, 1);
    }
  }

  /** A place in `running`. */
  #chooseVictim(): number {
    const { length } = this.#running;
    if (this.#victim === "latest") return length - 1;
    if (this.#victim === "random") return this.#random.integer(length);
    const sign = this.#victim === "least-computed" ? 1 : -1;
    let victim = length - 1;
    for (let i = length - 2; i >= 0; i--) {
      const less = computedTokens(this.#running[i]!) - computedTokens(this.#running[victim]!);
      if (sign * less < 0) victim = i;
    }
    return victim;
  }

  #followParents(group: Group): void {
    const { tables } = group;
    if (this.#beamParents.draw(tables.length) === 0) return;
    group.tables = this.#beamParents.parents.map((parent) => this.#pool.fork(tables[parent]!));
    for (const table of tables) this.#pool.free(table);
  }

  #preempt(index: number): void {
    const [group] = this.#running.splice(index, 1);
    const { request, tables } = group!;
    this.numPreemptions += 1;
    this.#numSequences -= request.width;
    const isSwapped = this.#recovery === "paper" ? request.width > 1 : this.#recovery === "swap";
    if (isSwapped) {
      group!.swapped = this.#pool.swapOut(tables);
      this.#copyMs += this.#swapMs(group!.swapped.numBlocks);
      insertInOrder(this.#swapped, group!);
    } else {
      for (const table of tables) this.#pool.free(table);
      insertInOrder(this.#preempted, group!);
    }
  }

  /** The paper's way: a copy for each block, layer, and K and V. */
  #swapMs(numBlocks: number): number {
    const { blockSize } = this.#pool;
    return hostCopyMs(this.#model, numBlocks * blockSize, 2 * this.#model.numLayers * numBlocks);
  }

  /** Brings back who was swapped out, in order; returns their rows. */
  #swapIn(): number {
    let rows = 0;
    while (this.#swapped.length > 0) {
      const group = this.#swapped[0]!;
      const { width } = group.request;
      // Room for its next tokens too.
      if (!this.#hasRoom(group.swapped!.numBlocks + width)) break;
      if (this.#numSequences + width > MAX_SEQUENCES) break;
      this.#swapped.shift();
      this.#copyMs += this.#swapMs(group.swapped!.numBlocks);
      group.tables = this.#pool.swapIn(group.swapped!);
      group.swapped = undefined;
      for (const table of group.tables) this.#pool.append(table, 1);
      this.#run(group);
      rows += width;
    }
    return rows;
  }

  /** Admits who fits, those to be recomputed first; returns their rows. */
  #admit(otherRows: number): number {
    let rows = 0;
    for (let passedOver = 0; ; ) {
      const resumed = this.#preempted[passedOver];
      const request = resumed?.request ?? this.#waiting.at(passedOver - this.#preempted.length);
      if (request === undefined) return rows;
      const tokens = request.promptTokens + (resumed?.generated ?? 0);
      const { width } = request;
      if (this.#numSequences + width > MAX_SEQUENCES) return rows;
      const prefix = this.#reservesPrefixes ? request.prefix : undefined;
      const prefixTable = prefix && this.#prefixTable(prefix);
      const shared = prefix?.tokens ?? 0;
      const newRows = tokens - shared;
      if (rows > 0 && otherRows + rows + newRows > MAX_BATCHED_TOKENS) return rows;
      if (!this.#hasRoom(this.#blocksFor(tokens, shared))) {
        if (passedOver === this.#maxPassedOver) return rows;
        passedOver += 1;
        continue;
      }
      const first = prefixTable === undefined ? emptyTable() : this.#pool.fork(prefixTable);
      this.#pool.append(first, newRows);
      const tables = [first];
      while (tables.length < width) tables.push(this.#pool.fork(first));
      if (resumed === undefined) {
        this.#waiting.remove(passedOver - this.#preempted.length);
        this.#run({ request, tables, generated: 0, swapped: undefined });
      } else {
        this.#preempted.splice(passedOver, 1);
        this.recomputedTokens += newRows - 1;
        resumed.tables = tables;
        this.#run(resumed);
      }
      rows += newRows;
    }
  }

  #blocksFor(tokens: number, sharedTokens: number): number {
    const { blockSize } = this.#pool;
    return Math.ceil(tokens / blockSize) - Math.floor(sharedTokens / blockSize);
  }

  #hasRoom(numBlocks: number): boolean {
    const left = this.#pool.numFree - numBlocks;
    // Alone, a request may take all.
    return left >= (this.#running.length === 0 ? 0 : this.#watermark);
  }

  /** Blocks of a prefix that the provider has reserved; never freed. */
  #prefixTable({ id, tokens }: SharedPrefix): Table {
    let table = this.#prefixes.get(id);
    if (table === undefined) {
      table = emptyTable();
      this.#pool.append(table, tokens);
      this.#prefixes.set(id, table);
    }
    return table;
  }

  #reservedPrefixTokens(): number {
    let sum = 0;
    for (const table of this.#prefixes.values()) sum += table.length;
    return sum;
  }

  #run(group: Group): void {
    insertInOrder(this.#running, group);
    this.#numSequences += group.request.width;
  }

  #account(): void {
    const { kv } = this;
    const { blockSize, physicalBlocks, physicalTokens, logicalBlocks } = this.#pool;
    kv.tokenStates = physicalTokens;
    kv.physicalBlocks = physicalBlocks;
    kv.logicalBlocks = logicalBlocks;
    // The rest of blocks that are not full: no more than a block a sequence, most of it to be written.
    kv.reserved = physicalBlocks * blockSize - physicalTokens;
    this.batchSize = this.#running.length;
  }

  #report(progress: Progress): void {
    const running = this.#running;
    let numLeft = 0;
    for (const group of running) {
      const { request, tables } = group;
      group.generated += 1;
      for (let i = 0; i < request.width; i++) progress.token(request.firstSequence + i);
      if (group.generated < request.outputTokens) {
        running[numLeft] = group;
        numLeft += 1;
        continue;
      }
      for (const table of tables) this.#pool.free(table);
      this.#numSequences -= request.width;
      progress.finish(request);
    }
    running.length = numLeft;
  }
}

function computedTokens({ tables }: Group): number {
  return tables.reduce((sum, { length }) => sum + length, 0);
}

/** Keeps a list in order of arrival. */
function insertInOrder(groups: Group[], group: Group): void {
  const { index } = group.request;
  let place = groups.length;
  while (place > 0 && groups[place - 1]!.request.index > index) place -= 1;
  groups.splice(place, 0, group);
}
