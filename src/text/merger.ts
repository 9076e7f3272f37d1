import { BPE } from "@huggingface/tokenizers";
import { createLongWordMerger } from "./longWordMerger.ts";
import type { Merge } from "./merge.ts";

/** From this length on, in UTF-16, words hardly ever come twice, and the library takes long over them. */
const LONG_WORD = 256;

/** Words whose pieces are remembered. */
const MAX_KNOWN_WORDS = 20_000;

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
  // The library's own cache drops one word for each new one when it is full: ten times slower than
  // starting anew, in texts of many different words.
  model.max_length_to_cache = 0;
  const known = new Map<string, readonly string[]>();
  let mergeLong: ((word: string) => string[]) | undefined;
  return (word) => {
    if (word.length >= LONG_WORD) {
      mergeLong ??= createLongWordMerger(merges());
      return mergeLong(word);
    }
    let pieces = known.get(word);
    if (pieces === undefined) {
      pieces = model.bpe(word);
      if (known.size === MAX_KNOWN_WORDS) known.clear();
      known.set(word, pieces);
    }
    return pieces;
  };
}
