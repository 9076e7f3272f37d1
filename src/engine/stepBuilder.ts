import { usesPenalties } from "./sampling.ts";
import type { Sequence } from "./sequence.ts";
import {
  type BlockTableEntry,
  SAMPLED_TOKEN,
  type SlotReset,
  type Step,
  type StepRow,
  type StepSample,
  type StepScore,
} from "./step.ts";

/** A step and whom its samples and scores belong to. */
export interface ScheduledStep {
  readonly step: Step;
  /** One for each of `step.samples`. */
  readonly sampledSequences: readonly Sequence[];
  /** One for each of `step.scores`. */
  readonly scoredSequences: readonly Sequence[];
}

/** Collects what the scheduler decides into one `Step`. */
export class StepBuilder {
  readonly #blockSize: number;
  readonly #slotResets: SlotReset[] = [];
  readonly #blockTableEntries: BlockTableEntry[] = [];
  readonly #rows: StepRow[] = [];
  readonly #samples: StepSample[] = [];
  readonly #sampledSequences: Sequence[] = [];
  readonly #scores: StepScore[] = [];
  readonly #scoredSequences: Sequence[] = [];

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  get numRows(): number {
    return this.#rows.length;
  }

  /** Rows whose logits are wanted. */
  get numLogits(): number {
    return this.#samples.length + this.#scores.length;
  }

  /** The sequence enters its slot: all that the back end must know about it. */
  addSlotReset(sequence: Sequence): void {
    const { slot, sampling, tokens, numPromptTokens } = sequence;
    const counted = usesPenalties(sampling);
    this.#slotResets.push({
      slot,
      sampling,
      promptTokens: counted ? tokens.slice(0, numPromptTokens) : [],
      outputTokens: counted ? tokens.slice(numPromptTokens) : [],
    });
    for (const [index, block] of sequence.blockTable.entries()) {
      this.#blockTableEntries.push({ slot, index, block });
    }
  }

  /** The sequence's table has gained its last block. */
  addLastBlock({ slot, blockTable }: Sequence): void {
    const index = blockTable.length - 1;
    this.#blockTableEntries.push({ slot, index, block: blockTable[index]! });
  }

  /**
   * Rows for the next `count` tokens to compute, scores where the sequence lacks them, and a sample if
   * the rows reach the last known token.
   */
  addRows(sequence: Sequence, count: number): void {
    const { slot, tokens, blockTable } = sequence;
    const last = tokens.length - 1;
    const end = sequence.numComputedTokens + count;
    const firstScored = sequence.lacksScores ? sequence.firstNeededRow : last;
    for (let position = sequence.numComputedTokens; position < end; position++) {
      const inSlot = position === last && sequence.lastTokenInSlot;
      const block = blockTable[Math.floor(position / this.#blockSize)]!;
      this.#rows.push({
        slot,
        token: inSlot ? SAMPLED_TOKEN : tokens[position]!,
        position,
        kvSlot: block * this.#blockSize + (position % this.#blockSize),
      });
      if (position >= firstScored && position < last) {
        const row = this.#rows.length - 1;
        this.#scores.push({ row, token: tokens[position + 1]!, top: sequence.numTopScores });
        this.#scoredSequences.push(sequence);
      }
    }
    if (end === tokens.length) {
      this.#samples.push({ row: this.#rows.length - 1, slot, position: end });
      this.#sampledSequences.push(sequence);
    }
  }

  build(id: number): ScheduledStep {
    return {
      step: {
        id,
        slotResets: this.#slotResets,
        blockTableEntries: this.#blockTableEntries,
        rows: this.#rows,
        samples: this.#samples,
        scores: this.#scores,
      },
      sampledSequences: this.#sampledSequences,
      scoredSequences: this.#scoredSequences,
    };
  }
}
