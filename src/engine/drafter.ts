import { DraftControl } from "./draftControl.ts";
import { PromptLookup } from "./promptLookup.ts";
import type { StepBudget } from "./stepBudget.ts";

/** Lengths of the n-grams that are looked up: vLLM's usual choice for text that repeats its prompt. */
const MIN_N = 2;
const MAX_N = 4;

/**
 * Guesses a sequence's next tokens from what it has said before (prompt lookup), as many as pay. A draft
 * is used only if it is what would have been sampled anyway, so a wrong guess costs a row and nothing else.
 */
export class Drafter {
  readonly #maxDrafts: number;
  readonly #lookup = new PromptLookup({ minN: MIN_N, maxN: MAX_N });
  readonly #control = new DraftControl();

  constructor(maxDrafts: number, tokens: readonly number[]) {
    this.#maxDrafts = maxDrafts;
    this.#lookup.append(tokens);
  }

  /** Drafts for a step of `numRows` rows without them, at most `most`; none where they cost more than they bring. */
  propose(
    most: number,
    numRows: number,
    { msPerStep, msPerRow }: Pick<StepBudget, "msPerStep" | "msPerRow">,
  ): readonly number[] {
    const maxDrafts = Math.min(most, this.#maxDrafts);
    const count = this.#control.draftsWorthwhile({ msPerStep, msPerRow, maxDrafts, numRows });
    return count === 0 ? [] : this.#lookup.propose(count);
  }

  /** The sequence got `tokens`; `numAccepted` of `numDrafts` drafts were among them. */
  record(tokens: readonly number[], numDrafts: number, numAccepted: number): void {
    this.#lookup.append(tokens);
    this.#control.record(numDrafts, numAccepted);
  }
}
