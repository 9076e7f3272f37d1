import { BPE } from "@huggingface/tokenizers";
import { createLongWordMerger } from "./longWordMerger.ts";
import type { Merge } from "./merge.ts";

/** Words of this length, in UTF-16, the library does not cache any more. */
const LONG_WORD = 256;

/**
 * Makes the function that merges the characters of a word into pieces until no pair is left.
 * Of several merges of one pair the first counts. `merges` are listed once at first, and again when
 * the first long word comes.
 */
export function createMerger(merges: () => Iterable<Merge>): (word: string) => readonly string[] {
  // The library ranks merges by their place in a list, so that two can't be equal and the last of
  // several of one pair counts. llama.cpp differs in both, hence the ranks are put in from here.
  const model = new BPE({ type: "BPE", vocab: {}, merges: [], ignore_merges: false });
  const ranks = model.bpe_ranks;
  for (const [left, right, rank] of merges()) {
    const key = JSON.stringify([left, right]);
    if (!ranks.has(key)) ranks.set(key, rank);
  }
  let mergeLong: ((word: string) => string[]) | undefined;
  return (word) => {
    if (word.length < LONG_WORD) return model.bpe(word);
    mergeLong ??= createLongWordMerger(merges());
    return mergeLong(word);
  };
}
