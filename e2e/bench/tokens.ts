// Prompts for measurements are token ids: no tokenizer and no template decides how long they are.

/** Below are control tokens and single bytes in every vocabulary that is measured. */
const FIRST_PLAIN_TOKEN = 500;

/** `count` ids of ordinary tokens; the same for the same seed (xorshift32). */
export function plainTokens(count: number, seed: number, vocabularySize: number): number[] {
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return FIRST_PLAIN_TOKEN + (state % (vocabularySize - FIRST_PLAIN_TOKEN));
  });
}
