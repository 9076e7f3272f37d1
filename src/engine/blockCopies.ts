import { invariant } from "../errors.ts";
import type { BlockPool } from "./blockPool.ts";
import type { BlockCopy } from "./step.ts";

/**
 * The block copies of the step that is being scheduled. Their sources are held once more until the step
 * is complete, so that nothing else is copied or swapped into them before they are read.
 */
export class BlockCopies {
  readonly #pool: BlockPool;
  readonly #holds: Int32Array; // [numBlocks]: copies that read the block
  #pending: BlockCopy[] = [];

  constructor(pool: BlockPool) {
    this.#pool = pool;
    this.#holds = new Int32Array(pool.numBlocks);
  }

  /** Whoever holds `source` for itself gives that hold away. */
  add(source: number, target: number): void {
    invariant(!this.hasTarget(source), `KV block ${source} is copied before it is written.`);
    this.#holds[source]! += 1;
    this.#pending.push({ source, target });
  }

  /** Holders of the block that are no copies. */
  numOwners(block: number): number {
    return this.#pool.refCount(block) - this.#holds[block]!;
  }

  hasTarget(block: number): boolean {
    for (const { target } of this.#pending) if (target === block) return true;
    return false;
  }

  /** Nobody holds `block` any more: what was to be copied into it is not. */
  drop(block: number): void {
    const place = this.#pending.findIndex(({ target }) => target === block);
    if (place < 0) return;
    this.#letGo(this.#pending[place]!);
    this.#pending.splice(place, 1);
  }

  /** The step is complete: its copies. */
  take(): BlockCopy[] {
    const copies = this.#pending;
    for (const copy of copies) this.#letGo(copy);
    this.#pending = [];
    return copies;
  }

  /** Adds the copies' holds to `holders`, holds per block. Throws `internal` if a target is free. */
  countHolders(holders: Int32Array): void {
    for (const { source, target } of this.#pending) {
      holders[source]! += 1;
      invariant(
        this.#pool.refCount(target) > 0,
        `A copy goes to KV block ${target}, which is free.`,
      );
    }
  }

  #letGo({ source }: BlockCopy): void {
    this.#holds[source]! -= 1;
    this.#pool.release(source);
  }
}
