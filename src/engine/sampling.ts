/** How tokens of one sequence are chosen. Names and semantics are vLLM's `SamplingParams`. */
export interface SamplingParams {
  /** 0 = greedy (argmax, ties to the lowest id). */
  readonly temperature: number;
  /** Keep the `topK` best logits (all that tie with the last); 0 = all. */
  readonly topK: number;
  /** Keep the smallest set of best tokens whose probability reaches `topP`; 1 = all. */
  readonly topP: number;
  /** Keep tokens with probability >= `minP` times the best one's; 0 = all. */
  readonly minP: number;
  /** > 1 makes tokens of prompt and output rarer; 1 = off. */
  readonly repetitionPenalty: number;
  /** Subtracted once from tokens that the output holds. */
  readonly presencePenalty: number;
  /** Subtracted per occurrence in the output. */
  readonly frequencyPenalty: number;
  /** Added to the logits of these token ids: pairs of id and bias. */
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[];
  /** Key of the counter-based RNG: 64 bits as two unsigned words. The counter is the position. */
  readonly seed: readonly [low: number, high: number];
  /** Log-probabilities to report: undefined = none, 0 = the sampled token's, n = also the n best. */
  readonly logprobs: number | undefined;
}

export const GREEDY: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  seed: [0, 0],
  logprobs: undefined,
};

/** Most `logprobs` a sequence may ask for (OpenAI's `top_logprobs` limit). */
export const MAX_LOGPROBS = 20;

/** Widest beam search: it needs the log-probabilities of twice as many tokens. */
export const MAX_BEAM_WIDTH = MAX_LOGPROBS / 2;

/** Most `logitBias` pairs of one sequence (OpenAI's limit is 300; a round number above). */
export const MAX_LOGIT_BIAS = 1024;

/** True if any penalty needs the counts of prompt and output tokens. */
export function usesPenalties(params: SamplingParams): boolean {
  return (
    params.repetitionPenalty !== 1 || params.presencePenalty !== 0 || params.frequencyPenalty !== 0
  );
}
