// OpenAI's shapes, as own structural types: the supported fields and no others. Fields beyond
// OpenAI's have vLLM's names and meanings where vLLM has them (top_k, min_p, repetition_penalty,
// stop_token_ids, ignore_eos, prompt_logprobs, return_token_ids, best_of, use_beam_search, beam_width,
// length_penalty, early_stopping, priority, cache_salt); deadline_ms, keep, session and
// num_speculative_tokens of a request are Quire's.

/** Sampling and limits, common to chat and plain completions. */
export interface SamplingFields {
  /** Accepted for compatibility: an engine has one model. */
  readonly model?: string | null;
  /**
   * Most tokens to generate; default: up to the context. At least 1, but 0 with `prompt_logprobs`. Alias of
   * `max_completion_tokens`.
   */
  readonly max_tokens?: number | null;
  /** 0 to 2; default 1. 0 always takes the likeliest token. */
  readonly temperature?: number | null;
  /** More than 0, at most 1; default 1. */
  readonly top_p?: number | null;
  /** 0 or more (0 and -1: all); default 0. */
  readonly top_k?: number | null;
  /** 0 to 1; default 0. */
  readonly min_p?: number | null;
  /** An integer: the same seed gives the same tokens. Choice i of n uses seed + i. */
  readonly seed?: number | null;
  /** Up to 16 texts that end the completion; they are not part of it. */
  readonly stop?: string | readonly string[] | null;
  /** Token ids that end the completion, besides the model's own. */
  readonly stop_token_ids?: readonly number[] | null;
  /** True: the model's end tokens do not end the completion. */
  readonly ignore_eos?: boolean | null;
  /** Choices to make of one prompt, 1 to 128; default 1. */
  readonly n?: number | null;
  /** -2 to 2; default 0. */
  readonly presence_penalty?: number | null;
  /** -2 to 2; default 0. */
  readonly frequency_penalty?: number | null;
  /** More than 0, at most 2; default 1. */
  readonly repetition_penalty?: number | null;
  /** Token id to a bias of -100 to 100. */
  readonly logit_bias?: Readonly<Record<string, number>> | null;
  /**
   * 0 to 20: log-probabilities of the prompt's tokens, each after those before it, and of that many
   * likeliest ones in its place. With it `max_tokens` may be 0: the prompt is judged and nothing generated.
   * Such a prompt is computed whole, also where its keys and values are in the pool.
   */
  readonly prompt_logprobs?: number | null;
  /** True: choices and chunks carry `token_ids`. */
  readonly return_token_ids?: boolean | null;
  /**
   * Samples to draw, `n` to 128; default `n`. With more, the `n` with the highest mean log-probability a
   * token are the choices, best first, when all have ended: a stream then has one chunk for each. Not with
   * `stop` and `prompt_logprobs`.
   */
  readonly best_of?: number | null;
  /**
   * True: the choices are the `n` best hypotheses of a beam search, best first, when it has ended; a
   * stream then has one chunk for each. `temperature` is 0. Not with `best_of`, `seed`, `stop`, `logit_bias`,
   * `logprobs`, `prompt_logprobs`, or with values of `top_p`, `top_k`, `min_p`, the penalties and
   * `num_speculative_tokens` that change something.
   */
  readonly use_beam_search?: boolean | null;
  /** Hypotheses that beam search follows at once, `n` to 10; default `n`. */
  readonly beam_width?: number | null;
  /**
   * Beam search ranks by log-probability / length ** `length_penalty`: -10 to 10, default 1. Above 0
   * favours long hypotheses.
   */
  readonly length_penalty?: number | null;
  /**
   * When beam search ends. true: with `beam_width` finished hypotheses. false (default): also no running
   * one scores better as it is. "never": no running one could ever score better.
   */
  readonly early_stopping?: boolean | "never" | null;
  /** An integer; lower ones run first. Waiting makes up for it, so that none waits for ever. Default 0. */
  readonly priority?: number | null;
  /**
   * Keys and values of equal prompts are shared among requests of equal salt only, which keeps one user
   * from finding out by time what another asked. 1 to 1,024 characters; default: one salt for all.
   */
  readonly cache_salt?: string | null;
  /**
   * Milliseconds after which the request fails with `deadline-exceeded`. `data.choices` of the error holds
   * what there is by then, each `{ index, text, token_ids, finish_reason }`; a stream delivers it first.
   */
  readonly deadline_ms?: number | null;
  /**
   * Keeps the prompt's keys and values in the pool before others, which are evicted first: for `ttl_ms`
   * after their last use, or with true until `endSession` or `resetPrefixCache`. Default false.
   */
  readonly keep?: boolean | { readonly ttl_ms: number } | null;
  /**
   * The conversation that the request is a turn of, 1 to 1,024 characters: when an edited turn leaves a
   * branch behind, that branch is evicted first.
   */
  readonly session?: string | null;
  /**
   * Most tokens a step that are guessed from what the text repeats and then verified: the same tokens in
   * fewer steps where text is copied. 0 (default) to 8.
   */
  readonly num_speculative_tokens?: number | null;
  readonly stream_options?: { readonly include_usage?: boolean | null } | null;
  /** Ends the request: the promise rejects, the stream throws, with `aborted`. */
  readonly signal?: AbortSignal | null;
}

export interface ChatTextPart {
  readonly type: "text";
  readonly text: string;
}

/** `developer` is read as `system`. */
export interface ChatMessage {
  readonly role: "system" | "developer" | "user" | "assistant";
  readonly content: string | readonly ChatTextPart[];
}

export interface ChatCompletionParams extends SamplingFields {
  /** At least one. */
  readonly messages: readonly ChatMessage[];
  readonly max_completion_tokens?: number | null;
  /** True: choices carry log-probabilities of their tokens. */
  readonly logprobs?: boolean | null;
  /** 0 to 20 likeliest tokens at each position; needs `logprobs: true`. */
  readonly top_logprobs?: number | null;
  readonly stream?: boolean | null;
}

export interface ChatCompletionParamsNonStreaming extends ChatCompletionParams {
  readonly stream?: false | null;
}

export interface ChatCompletionParamsStreaming extends ChatCompletionParams {
  readonly stream: true;
}

export interface CompletionParams extends SamplingFields {
  /** A text, token ids, or a list of either. Texts of control tokens become those tokens. */
  readonly prompt: string | readonly string[] | readonly number[] | readonly (readonly number[])[];
  /** 0 to 20: log-probabilities of the tokens and of that many likeliest ones in their places. */
  readonly logprobs?: number | null;
  readonly stream?: boolean | null;
}

export interface CompletionParamsNonStreaming extends CompletionParams {
  readonly stream?: false | null;
}

export interface CompletionParamsStreaming extends CompletionParams {
  readonly stream: true;
}
