import { invariant } from "../errors.ts";
import type { Step, StepExecutor, StepResult } from "./step.ts";

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

/** Throws `internal` unless the result has the shape that the step asks for. */
export function checkResult(step: Step, { tokens, logprobs, scores }: StepResult): void {
  const { length } = step.samples;
  const valid =
    tokens.length === length &&
    logprobs.length === length &&
    scores.length === step.scores.length &&
    tokens.every((token) => Number.isInteger(token) && token >= 0);
  invariant(
    valid,
    `The back end answered step ${step.id} with ${tokens.length} tokens (${tokens.join(", ")}), ${logprobs.length} log-probability lists and ${scores.length} scores for ${length} samples and ${step.scores.length} scores.`,
  );
}
