import { invariant, QuireError } from "../errors.ts";
import { NO_TOKEN, type Step, type StepExecutor, type StepResult } from "./step.ts";

/** A back end that throws at once fails the step like one that rejects. */
export function submitStep(executor: StepExecutor, step: Step): Promise<StepResult> {
  let result: Promise<StepResult>;
  try {
    ({ result } = executor.submit(step));
  } catch (error) {
    result = Promise.reject(error);
  }
  result.catch(() => {}); // it may never be waited for: an earlier step's failure voids it
  return result;
}

/** True if the step failed for want of host memory for its swaps. They are optional: recomputing does too. */
export function lacksHostMemory({ swapOuts, swapIns }: Step, error: unknown): error is QuireError {
  const isSwapping = swapOuts.length + swapIns.length > 0;
  return isSwapping && error instanceof QuireError && error.code === "out-of-memory";
}

/** Throws `internal` unless the result has the shape that the step asks for. */
export function checkResult(step: Step, { tokens, logprobs, scores }: StepResult): void {
  const { length } = step.samples;
  const valid =
    tokens.length === length &&
    logprobs.length === length &&
    scores.length === step.scores.length &&
    tokens.every((token) => Number.isInteger(token) && (token >= 0 || token === NO_TOKEN));
  invariant(
    valid,
    `The back end answered step ${step.id} with ${tokens.length} tokens (${tokens.join(", ")}), ${logprobs.length} log-probability lists and ${scores.length} scores for ${length} samples and ${step.scores.length} scores.`,
  );
}
