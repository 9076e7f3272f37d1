import { QuireError } from "../errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Throws `context-overflow` for a text that is more than `maxTokens` tokens however it is cut. To find
 * out how many more would take seconds, in which nobody's request goes on.
 *
 * A vocabulary that lacks bytes drops the text that it has no tokens for, so such a text might have
 * fitted after all. It is refused all the same.
 */
export function checkPromptLength(
  text: string,
  maxTokens: number,
  { longestToken }: Pick<Tokenizer, "longestToken">,
): void {
  const most = maxTokens * longestToken;
  if (text.length <= most) return;
  throw new QuireError(
    "context-overflow",
    `The prompt has ${text.length} characters; the context of ${maxTokens} tokens holds ${most} at the very most. Shorten the prompt.`,
    { promptLength: text.length, maxLength: most, maxContext: maxTokens },
  );
}
