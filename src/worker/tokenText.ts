import type { Tokenizer } from "../text/tokenizer.ts";

/** A token by itself: control tokens by their names. */
export function tokenText(
  tokenizer: Tokenizer,
  token: number,
): { readonly text: string; readonly bytes: readonly number[] } {
  if (tokenizer.isControl(token)) {
    const text = tokenizer.tokenText(token);
    return { text, bytes: [...encoder.encode(text)] };
  }
  const bytes = tokenizer.tokenBytes(token);
  return { text: decoder.decode(bytes), bytes: [...bytes] };
}

const encoder = new TextEncoder();
/** A token may hold part of a character, which shows as U+FFFD; its bytes tell more. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
