import type { FinishReason, RequestId, Sequence } from "./sequence.ts";
import type { TokenLogprobs, TokenScore } from "./step.ts";

/** News of one sequence. */
export interface SequenceOutput {
  readonly requestId: RequestId;
  /** Which of the request's n samples. */
  readonly index: number;
  /** Tokens since the last output; never the stop token. */
  readonly tokens: readonly number[];
  /** One for each of `tokens`, if the sampling parameters ask for them. */
  readonly logprobs?: readonly TokenLogprobs[];
  /**
   * Scores of the prompt's tokens from the second on, if they were asked for: once, in the first output
   * of sample 0. Missing if it was ended before its prompt was computed.
   */
  readonly promptScores?: readonly TokenScore[];
  /** Set in the sequence's last output. */
  readonly finishReason: FinishReason | undefined;
  /** The token that ended it, if one did. */
  readonly stopToken?: number;
  /** Sum of the log-probabilities of all sampled tokens so far, the stop token's included, where they are known. */
  readonly cumulativeLogprob?: number;
  /** Length of the prompt. */
  readonly promptTokens: number;
  /**
   * Prompt tokens that were in the prefix cache when the sequence first ran; 0 if it never ran. Samples
   * after the first find the first one's prompt there.
   */
  readonly cachedTokens: number;
}

/** The sequence's state as news, with these new tokens. */
export function outputOf(
  sequence: Sequence,
  tokens: readonly number[],
  logprobs: readonly TokenLogprobs[] | undefined,
): SequenceOutput {
  return {
    requestId: sequence.requestId,
    index: sequence.index,
    tokens,
    logprobs,
    promptScores: sequence.takePromptScores(),
    finishReason: sequence.finishReason,
    stopToken: sequence.stopToken,
    cumulativeLogprob:
      sequence.sampling.logprobs === undefined ? undefined : sequence.cumulativeLogprob,
    promptTokens: sequence.numPromptTokens,
    cachedTokens: sequence.cachedTokens ?? 0,
  };
}
