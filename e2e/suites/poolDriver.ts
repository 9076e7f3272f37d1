import type { Plan } from "../../src/backends/ops.ts";
import type { BlockTableEntry, StepHandle, StepResult } from "../../src/engine/step.ts";
import { makeStep, type PoolMoves, type SequenceRows } from "../fixtures/drivePlan.ts";

/** What came of a step. */
export interface Outcome {
  readonly result: StepResult;
  /** The bits of the logits, by sample. */
  readonly logits: readonly Uint32Array[];
}

/** Drives a plan by hand as the engine does: a step names only what is new in the block tables. */
export class PoolDriver {
  readonly plan: Plan;
  readonly #blockSize: number;
  readonly #vocabularySize: number;
  readonly #tables = new Map<number, number[]>(); // by slot, as the plan knows them
  #numSteps = 0;

  constructor(plan: Plan, blockSize: number, vocabularySize: number) {
    this.plan = plan;
    this.#blockSize = blockSize;
    this.#vocabularySize = vocabularySize;
  }

  /** Hands in a step and does not wait for it. */
  submit(sequences: readonly SequenceRows[], moves?: PoolMoves): StepHandle {
    const step = makeStep(this.#numSteps++, this.#blockSize, sequences, moves);
    for (const { slot } of step.slotResets) this.#tables.set(slot, []);
    const blockTableEntries = step.blockTableEntries.filter((entry) => this.#isNew(entry));
    return this.plan.submit({ ...step, blockTableEntries });
  }

  /** Runs a step to its end. */
  async run(sequences: readonly SequenceRows[], moves?: PoolMoves): Promise<Outcome> {
    const result = await this.submit(sequences, moves).result;
    const bits = new Uint32Array((await this.plan.readLogits()).buffer);
    const logits = result.tokens.map((_, sample) => {
      const at = sample * this.#vocabularySize;
      return bits.slice(at, at + this.#vocabularySize);
    });
    return { result, logits };
  }

  #isNew({ slot, index, block }: BlockTableEntry): boolean {
    const table = this.#tables.get(slot);
    if (!table || table[index] === block) return false;
    table[index] = block;
    return true;
  }
}
