import { QuireError } from "../errors.ts";
import type { Merge } from "./merge.ts";
import { createMerger } from "./merger.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** What SentencePiece vocabularies write a space as. */
export const SPM_SPACE = "\u2581";

const NUM_CODE_POINTS = 0x110000;
const encoder = new TextEncoder();

/**
 * SentencePiece BPE: characters merge by the score of the token that they form; what ends without a
 * token becomes byte tokens. The text comes with its space prefix already.
 * `ids` are the tokens that plain text may become, by their text.
 * Throws `model-unsupported` for a vocabulary without the 256 byte tokens.
 */
export function createSpmEncoder(
  vocabulary: Vocabulary,
  ids: ReadonlyMap<string, number>,
): (text: string) => number[] {
  const byteIds = readByteIds(ids);
  const merge = createMerger(() => merges(vocabulary.scores, ids));
  const joints = findJoints(ids);

  const appendSegment = (segment: string, out: number[]): void => {
    for (const piece of isCharacter(segment) ? [segment] : merge(segment)) {
      const id = ids.get(piece);
      if (id !== undefined) out.push(id);
      else for (const byte of encoder.encode(piece)) out.push(byteIds[byte]!);
    }
  };

  return (text) => {
    const characters = text.replaceAll(" ", SPM_SPACE);
    const out: number[] = [];
    // No merge reaches over two neighbours that no token holds side by side, so the text may be cut
    // there: words are merged one by one and found in the merger's cache.
    let start = 0;
    let end = 0;
    let previous = -1;
    for (const character of characters) {
      const code = character.codePointAt(0)!;
      if (previous >= 0 && !joints.has(previous * NUM_CODE_POINTS + code)) {
        appendSegment(characters.slice(start, end), out);
        start = end;
      }
      end += character.length;
      previous = code;
    }
    appendSegment(characters.slice(start), out);
    return out;
  };
}

/** The byte that a token of the form `<0x0A>` stands for. */
export function parseByteToken(text: string): number | undefined {
  const match = /^<0x([0-9A-F]{2})>$/.exec(text);
  return match ? Number.parseInt(match[1]!, 16) : undefined;
}

function readByteIds(ids: ReadonlyMap<string, number>): Int32Array {
  const byteIds = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const text = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    const id = ids.get(text);
    if (id === undefined) {
      throw new QuireError(
        "model-unsupported",
        `The tokenizer of model "llama" has no byte token ${text}. Quire runs such tokenizers with all 256 byte tokens only.`,
        { byte },
      );
    }
    byteIds[byte] = id;
  }
  return byteIds;
}

/**
 * The file lists no merges: every way to cut a token into two pieces that can stand alone is one.
 * A piece can stand alone if it is a token or a single character.
 */
function* merges(scores: ArrayLike<number>, ids: ReadonlyMap<string, number>): Generator<Merge> {
  const rankOfScore = new Map<number, number>();
  for (const score of new Float64Array(Array.from(scores)).sort().reverse()) {
    if (!rankOfScore.has(score)) rankOfScore.set(score, rankOfScore.size);
  }
  for (const [text, id] of ids) {
    const rank = rankOfScore.get(scores[id]!)!;
    let cut = 0;
    for (const character of text) {
      cut += character.length;
      if (cut === text.length) break;
      const left = text.slice(0, cut);
      const right = text.slice(cut);
      if (isPiece(left, ids) && isPiece(right, ids)) yield [left, right, rank];
    }
  }
}

function isPiece(text: string, ids: ReadonlyMap<string, number>): boolean {
  return ids.has(text) || isCharacter(text);
}

function isCharacter(text: string): boolean {
  return text.length === (text.codePointAt(0)! > 0xffff ? 2 : 1);
}

/** Pairs of code points that stand side by side in some token. */
function findJoints(ids: ReadonlyMap<string, number>): ReadonlySet<number> {
  const joints = new Set<number>();
  for (const text of ids.keys()) {
    let previous = -1;
    for (const character of text) {
      const code = character.codePointAt(0)!;
      if (previous >= 0) joints.add(previous * NUM_CODE_POINTS + code);
      previous = code;
    }
  }
  return joints;
}
