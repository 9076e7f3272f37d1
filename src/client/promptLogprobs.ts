import type { WirePromptLogprob } from "../worker/protocol.ts";
import type { PromptLogprobs } from "./types.ts";

/** In vLLM's shape. */
export function promptLogprobsOf(wire: readonly WirePromptLogprob[]): PromptLogprobs {
  const places = wire.map((tokens) =>
    Object.fromEntries(
      tokens.map(({ token, text, logprob, rank }) => [
        token,
        { logprob, rank, decoded_token: text },
      ]),
    ),
  );
  return [null, ...places];
}
