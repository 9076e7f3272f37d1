import { usesPenalties } from "./sampling.ts";
import type { Sequence } from "./sequence.ts";
import {
  type BlockSwap,
  type BlockTableEntry,
  SAMPLED_TOKEN,
  type SlotReset,
  type Step,
  type StepRow,
  type StepSample,
  type StepScore,
} from "./step.ts";
import type { StepLoad } from "./stepBudget.ts";

/** Whose a sample or score is. The result is void if the sequence has left its slot since. */
export interface Claim {
  readonly sequence: Sequence;
  readonly epoch: number;
}

/** A step and whom its samples and scores belong to. */
export interface ScheduledStep {
  readonly step: Step;
  readonly load: StepLoad;
  /** One for each of `step.samples`. */
  readonly samples: readonly Claim[];
  /** One for each of `step.scores`. */
  readonly scores: readonly Claim[];
}

/** Collects what the scheduler decides into one `Step`. */
export class StepBuilder {
  readonly #blockSize: number;
  readonly #slotResets: SlotReset[] = [];
  readonly #blockTableEntries: BlockTableEntry[] = [];
  readonly #rows: StepRow[] = [];
  readonly #samples: StepSample[] = [];
  readonly #sampleClaims: Claim[] = [];
  readonly #scores: StepScore[] = [];
  readonly #scoreClaims: Claim[] = [];
  readonly #swapIns: BlockSwap[] = [];
  #numPositions = 0;

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  get numRows(): number {
    return this.#rows.length;
  }

  /** What the step computes so far. */
  get load(): StepLoad {
    return { rows: this.#rows.length, positions: this.#numPositions };
  }

  /** Rows whose logits are wanted. */
  get numLogits(): number {
    return this.#samples.length + this.#scores.length;
  }

  addSwapIns(swaps: readonly BlockSwap[]): void {
    this.#swapIns.push(...swaps);
  }

  /**
   * Rows for the next `count` tokens to compute and then for `drafts`, scores where the sequence lacks
   * them, and samples: at the last token's row if it is among them, and at the drafts'.
   */
  addRows(sequence: Sequence, count: number, drafts: readonly number[] = []): void {
    this.#addNews(sequence);
    const { tokens, numTokens } = sequence;
    const last = numTokens - 1;
    const start = sequence.numComputedTokens;
    const end = start + count;
    const firstScored = sequence.lacksScores ? sequence.firstNeededRow : last;
    for (let position = start; position < end; position++) {
      const inSlot = position === last && sequence.lastTokenInSlot;
      this.#addRow(sequence, position, inSlot ? SAMPLED_TOKEN : tokens[position]!);
      if (position >= firstScored && position < last) {
        const row = this.#rows.length - 1;
        this.#scores.push({ row, token: tokens[position + 1]!, top: sequence.numTopScores });
        this.#scoreClaims.push({ sequence, epoch: sequence.epoch });
      }
    }
    if (end !== numTokens) return;
    this.addSample(sequence, end);
    for (const [i, draft] of drafts.entries()) {
      this.#addRow(sequence, end + i, draft);
      this.addSample(sequence, end + i + 1);
    }
  }

  /** A token for `sequence` to be drawn from the row that was added last. */
  addSample(sequence: Sequence, position: number): void {
    if (sequence.isFresh) this.#addNews(sequence);
    this.#samples.push({ row: this.#rows.length - 1, slot: sequence.slot, position });
    this.#sampleClaims.push({ sequence, epoch: sequence.epoch });
  }

  /** `hostReleases` may name what is swapped in, too. */
  build(
    id: number,
    { hostReleases, swapOuts, copies }: Pick<Step, "hostReleases" | "swapOuts" | "copies">,
  ): ScheduledStep {
    const swappedIn = new Set(this.#swapIns.map(({ hostBlock }) => hostBlock));
    return {
      step: {
        id,
        hostReleases: hostReleases.filter((hostBlock) => !swappedIn.has(hostBlock)),
        swapOuts,
        swapIns: this.#swapIns,
        copies,
        slotResets: this.#slotResets,
        blockTableEntries: this.#blockTableEntries,
        rows: this.#rows,
        samples: this.#samples,
        scores: this.#scores,
      },
      load: this.load,
      samples: this.#sampleClaims,
      scores: this.#scoreClaims,
    };
  }

  #addRow({ slot, blockTable }: Sequence, position: number, token: number): void {
    const block = blockTable[Math.floor(position / this.#blockSize)]!;
    const kvSlot = block * this.#blockSize + (position % this.#blockSize);
    this.#rows.push({ slot, token, position, kvSlot });
    this.#numPositions += position + 1;
  }

  /** What the back end does not know of the sequence yet: that it entered its slot, and new table entries. */
  #addNews(sequence: Sequence): void {
    const { slot, blockTable } = sequence;
    if (sequence.isFresh) {
      sequence.isFresh = false;
      sequence.numSentBlocks = 0;
      this.#slotResets.push(resetOf(sequence));
    }
    for (let index = sequence.numSentBlocks; index < blockTable.length; index++) {
      this.#blockTableEntries.push({ slot, index, block: blockTable[index]! });
    }
    sequence.numSentBlocks = blockTable.length;
  }
}

function resetOf({ slot, sampling, tokens, numPromptTokens }: Sequence): SlotReset {
  const counted = usesPenalties(sampling);
  return {
    slot,
    sampling,
    promptTokens: counted ? tokens.slice(0, numPromptTokens) : [],
    outputTokens: counted ? tokens.slice(numPromptTokens) : [],
  };
}
