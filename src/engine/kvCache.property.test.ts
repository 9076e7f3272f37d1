import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Sequence } from "./sequence.ts";
import { KvWorld, tokenAt } from "./testing/kvWorld.ts";

type Operation =
  | { readonly kind: "add"; readonly prompt: readonly number[]; readonly scope: number }
  | {
      readonly kind: "continue";
      readonly pick: number;
      readonly cut: number;
      readonly next: number;
    }
  | { readonly kind: "admit"; readonly pick: number; readonly reserve: number }
  | { readonly kind: "compute"; readonly pick: number; readonly count: number }
  | {
      readonly kind: "draft";
      readonly pick: number;
      readonly count: number;
      readonly right: number;
    }
  | { readonly kind: "fork" | "release" | "finish" | "swapOut" | "swapIn"; readonly pick: number }
  | {
      readonly kind: "keep";
      readonly pick: number;
      readonly ttlMs: number;
      readonly session: number;
    }
  | { readonly kind: "endSession"; readonly session: number }
  | { readonly kind: "step" | "advance"; readonly ms: number };

const pick = fc.nat(30);
const session = fc.nat(2);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("add" as const),
      prompt: fc.array(fc.nat(1), { minLength: 1, maxLength: 9 }),
      scope: fc.nat(3),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("continue" as const),
      pick,
      cut: fc.nat(4),
      next: fc.nat(2),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("admit" as const), pick, reserve: fc.nat(1) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant("compute" as const), pick, count: fc.nat(9) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("draft" as const),
      pick,
      count: fc.nat(4),
      right: fc.nat(4),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom("fork", "fork", "release", "finish", "finish", "swapOut", "swapIn"),
      pick,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("keep" as const),
      pick,
      ttlMs: fc.constantFrom(5, 20, Number.POSITIVE_INFINITY),
      session,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("endSession" as const), session }) },
  {
    weight: 12,
    arbitrary: fc.record({ kind: fc.constantFrom("step", "advance", "advance"), ms: fc.nat(10) }),
  },
);

/** Runs a history, checking after every operation. */
class History {
  readonly world: KvWorld;
  readonly #past: number[][] = []; // tokens of sequences that have ended
  readonly #sessionOf = new Map<Sequence, number>();
  /** Tokens that the step's samples add, by sequence. */
  readonly #sampled = new Map<Sequence, number>();

  constructor(world: KvWorld) {
    this.world = world;
  }

  apply(operation: Operation): void {
    const { world } = this;
    switch (operation.kind) {
      case "add":
        this.#add(operation.prompt, operation.scope);
        break;
      case "continue": {
        const before = this.#past[operation.pick % Math.max(1, this.#past.length)];
        if (before !== undefined) {
          const kept = before.slice(0, Math.max(1, before.length - operation.cut));
          this.#add([...kept.slice(0, 14), operation.next], 0);
        }
        break;
      }
      case "admit": {
        const sequence = this.#pick(operation.pick, (s) => isIdle(s) && s.swapped === undefined);
        if (sequence !== undefined) this.#admit(sequence, operation.reserve);
        break;
      }
      case "compute":
        this.#compute(operation.pick, operation.count);
        break;
      case "draft":
        this.#draft(operation.pick, operation.count, operation.right);
        break;
      case "fork":
        this.#fork(operation.pick);
        break;
      case "release": {
        const sequence = this.#pick(operation.pick, (s) => this.#isFreeToGo(s) && !isIdle(s));
        if (sequence !== undefined) world.release(sequence);
        break;
      }
      case "finish": {
        const sequence = this.#pick(operation.pick, (s) => this.#isFreeToGo(s));
        if (sequence !== undefined) this.#finish(sequence);
        break;
      }
      case "swapOut": {
        const sequence = this.#pick(operation.pick, (s) => this.#isFreeToGo(s) && !isIdle(s));
        if (sequence !== undefined) world.swapOut(sequence);
        break;
      }
      case "swapIn": {
        const sequence = this.#pick(operation.pick, (s) => s.swapped !== undefined);
        if (sequence !== undefined) world.swapIn(sequence);
        break;
      }
      case "keep": {
        const sequence = this.#pick(operation.pick, (s) => !isIdle(s));
        const name = operation.session === 0 ? undefined : `${operation.session}`;
        if (sequence !== undefined) world.kvCache.keep(sequence, operation.ttlMs, name);
        break;
      }
      case "endSession":
        world.kvCache.endSession(`${operation.session}`);
        break;
      case "step":
      case "advance":
        world.clockMs += operation.ms;
        if (operation.kind === "advance") this.#computeAll();
        this.#endStep();
        break;
    }
    world.checkIntegrity();
  }

  /** Everyone leaves: nothing is left. */
  finishAll(): void {
    this.#endStep();
    for (const sequence of this.world.sequences) this.#finish(sequence);
    this.world.checkIntegrity();
    expect(this.world.kvCache.pool.numUsed).toBe(0);
    expect(this.world.hostBlocks.numFree).toBe(this.world.hostBlocks.numBlocks);
    expect(this.world.kvCache.resetPrefixes()).toBe(true);
    expect(this.world.kvCache.numCachedBlocks).toBe(0);
    this.world.checkIntegrity();
  }

  #add(prompt: readonly number[], scope: number): void {
    const sequence = this.world.create(prompt, scope < 2 ? {} : SCOPES[scope - 2]);
    this.#sessionOf.set(sequence, prompt.length % 3);
  }

  #pick(number: number, isFit: (sequence: Sequence) => boolean): Sequence | undefined {
    const fit = [...this.world.sequences].filter(isFit);
    return fit[number % fit.length];
  }

  /** Rows of the present step keep a sequence where it is. */
  #isFreeToGo(sequence: Sequence): boolean {
    return !this.world.inStep.has(sequence);
  }

  #compute(number: number, count: number): void {
    const canCompute = (s: Sequence) =>
      !isIdle(s) && !this.#sampled.has(s) && s.numMissingTokens > 0;
    const sequence = this.#pick(number, canCompute);
    if (sequence === undefined) return;
    const numRows = Math.min(sequence.numMissingTokens, count + 1);
    if (!this.world.compute(sequence, numRows)) return;
    if (sequence.numMissingTokens === 0) this.#sampled.set(sequence, 1);
  }

  /** As a scheduler would: rows for all that run, then admission in order. */
  #computeAll(): void {
    const { sequences } = this.world;
    for (const sequence of sequences) {
      if (sequence.swapped !== undefined) this.world.swapIn(sequence);
      else if (isIdle(sequence)) this.#admit(sequence, 0);
    }
    for (let i = 0; i < sequences.size; i++) this.#compute(0, 9);
  }

  #admit(sequence: Sequence, reserve: number): void {
    if (!this.world.admit(sequence, reserve)) return;
    const number = this.#sessionOf.get(sequence)!;
    if (number > 0) this.world.kvCache.noteSession(`${number}`, sequence);
  }

  #draft(number: number, count: number, right: number): void {
    const canDraft = (s: Sequence) =>
      !isIdle(s) && !this.#sampled.has(s) && s.numMissingTokens === 1 && s.numPendingTokens === 0;
    const sequence = this.#pick(number, canDraft);
    if (sequence === undefined) return;
    const numAccepted = Math.min(right, count);
    if (!this.world.compute(sequence, 1, count, numAccepted)) return;
    this.#sampled.set(sequence, 1 + numAccepted);
  }

  /** Samples of one prompt part at its last row; beams part anywhere. */
  #fork(number: number): void {
    const canFork = (s: Sequence) =>
      !isIdle(s) && s.numPendingTokens === 0 && s.numComputedTokens === s.numTokens;
    const parent = this.#pick(number, canFork);
    if (parent === undefined) return;
    const { salt, adapterId } = parent.prefixScope;
    const { requestId, index } = parent;
    const child = this.world.create(parent.tokens, {
      salt,
      adapterId,
      requestId: Number(requestId),
      index: index + 1,
    });
    this.#sessionOf.set(child, this.#sessionOf.get(parent)!);
    this.world.kvCache.fork(parent, child);
    this.#sampled.set(child, 1);
    if (this.world.inStep.has(parent)) this.world.inStep.add(child);
  }

  #endStep(): void {
    this.world.end();
    for (const [sequence, count] of this.#sampled) {
      if (isIdle(sequence) || !this.world.sequences.has(sequence)) continue;
      const numDrafts = sequence.numComputedTokens - sequence.numTokens;
      // Every other sequence runs a step ahead of what the host knows.
      if (sequence.arrival % 2 === 0 && numDrafts === 0) sequence.numPendingTokens += 1;
      while (sequence.numPendingTokens > 1) reveal(sequence);
      if (sequence.arrival % 2 === 0 && numDrafts === 0) continue;
      const numComputed = sequence.tokens.length + count - 1;
      for (let i = 0; i < count; i++)
        sequence.tokens.push(tokenAt(sequence, sequence.tokens.length));
      if (numDrafts > 0) this.world.kvCache.truncate(sequence, numComputed);
    }
    this.#sampled.clear();
    this.world.checkContents();
  }

  #finish(sequence: Sequence): void {
    while (sequence.numPendingTokens > 0) reveal(sequence);
    if (sequence.prefixScope.salt === "") this.#past.push([...sequence.tokens]);
    this.world.finish(sequence);
    this.#sampled.delete(sequence);
  }
}

const SCOPES = [{ salt: "b" }, { adapterId: "b" }];

function isIdle({ blockTable }: Sequence): boolean {
  return blockTable.length === 0;
}

function reveal(sequence: Sequence): void {
  sequence.tokens.push(tokenAt(sequence, sequence.tokens.length));
  sequence.numPendingTokens -= 1;
}

describe("KvCache over random histories", () => {
  for (const [name, hash] of [
    ["a good hash", undefined],
    ["a hash that always collides", () => 7],
  ] as const) {
    it(`keeps its books and never shows a sequence what is not its own, with ${name}`, () => {
      fc.assert(
        fc.property(
          fc.integer({ min: 2, max: 14 }),
          fc.integer({ min: 1, max: 4 }),
          fc.nat(6),
          fc.array(operation, { minLength: 40, maxLength: 200, size: "max" }),
          (numBlocks, blockSize, numHostBlocks, operations) => {
            const world = new KvWorld({
              numBlocks,
              blockSize,
              numHostBlocks,
              ...(hash && { hash }),
            });
            const history = new History(world);
            for (const operation of operations) history.apply(operation);
            history.finishAll();
          },
        ),
        { numRuns: 150 },
      );
    }, 120_000);
  }
});
