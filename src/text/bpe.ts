import { SequencePreTokenizer } from "@huggingface/tokenizers";
import { QuireError } from "../errors.ts";
import { bytesToLetters } from "./byteLevel.ts";
import type { Merge } from "./merge.ts";
import { createMerger } from "./merger.ts";
import { findPreTokenizer, maskNewerCharacters } from "./preTokenizers.ts";
import type { Vocabulary } from "./vocabulary.ts";

/**
 * Byte-level BPE: text is cut into words, and the bytes of each word are merged.
 * `ids` are the tokens that plain text may become, by their text.
 * Throws `model-unsupported` for an unknown pre-tokenizer, `model-invalid` for a malformed merge.
 */
export function createBpeEncoder(
  vocabulary: Vocabulary,
  ids: ReadonlyMap<string, number>,
): (text: string) => number[] {
  const { patterns, ignoreMerges } = findPreTokenizer(vocabulary.pre);
  const split = new SequencePreTokenizer({
    type: "Sequence",
    pretokenizers: patterns.map((pattern) => ({
      type: "Split",
      pattern: { Regex: pattern },
      behavior: "Isolated",
      invert: false,
    })),
  });
  const merge = createMerger(() => readMerges(vocabulary.merges));

  const appendWord = (word: string, out: number[]): void => {
    const letters = bytesToLetters(word);
    const whole = ignoreMerges ? ids.get(letters) : undefined;
    if (whole !== undefined) {
      out.push(whole);
      return;
    }
    for (const piece of merge(letters)) {
      const id = ids.get(piece);
      if (id !== undefined) out.push(id);
      else appendUnknown(piece, ids, out);
    }
  };

  return (text) => {
    const out: number[] = [];
    let start = 0;
    for (const { length } of split.pre_tokenize(maskNewerCharacters(text))) {
      appendWord(text.slice(start, start + length), out);
      start += length;
    }
    return out;
  };
}

/** A piece without a token becomes its ASCII letters, as far as they are tokens, as in llama.cpp. */
function appendUnknown(piece: string, ids: ReadonlyMap<string, number>, out: number[]): void {
  for (const letter of piece) {
    const id = letter < "\x80" ? ids.get(letter) : undefined;
    if (id !== undefined) out.push(id);
  }
}

function* readMerges(merges: readonly string[]): Generator<Merge> {
  for (const [rank, pair] of merges.entries()) {
    // A first half may itself be a space in old files, hence the search starts behind it.
    const space = pair.indexOf(" ", 1);
    if (space < 0) {
      throw new QuireError(
        "model-invalid",
        `Merge ${rank} of the tokenizer is "${pair}"; it must be two tokens with a space between. The model file is damaged.`,
        { merge: rank },
      );
    }
    yield [pair.slice(0, space), pair.slice(space + 1), rank];
  }
}
