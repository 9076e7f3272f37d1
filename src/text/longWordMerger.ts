import type { Merge } from "./merge.ts";

// Two small integers share one number: a rank and a place (a string has fewer than 2^30 characters),
// or two ids of pieces.
const PLACES = 2 ** 30;
const IDS = 2 ** 24;

interface Result {
  readonly rank: number;
  readonly piece: number;
}

/**
 * The same merging as the library's, for words of thousands of characters (long runs of spaces, base64,
 * text without spaces): flat arrays and numbers instead of objects and strings, some 20 times faster.
 * Of several merges of one pair the first counts.
 */
export function createLongWordMerger(merges: Iterable<Merge>): (word: string) => string[] {
  const pieces: string[] = [];
  const ids = new Map<string, number>();
  const intern = (piece: string): number => {
    let id = ids.get(piece);
    if (id === undefined) {
      id = pieces.length;
      ids.set(piece, id);
      pieces.push(piece);
    }
    return id;
  };
  const results = new Map<number, Result>();
  for (const [left, right, rank] of merges) {
    const pair = intern(left) * IDS + intern(right);
    if (!results.has(pair)) results.set(pair, { rank, piece: intern(left + right) });
  }

  return (word) => {
    const characters = Array.from(word);
    const count = characters.length;
    // A doubly linked list over places: `at` is the piece that begins there, -1 once it is merged away.
    const at = Int32Array.from(characters, (character) => ids.get(character) ?? -2);
    const next = Int32Array.from({ length: count }, (_, i) => i + 1);
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
    const queue = new MinHeap();
    const resultAt = (place: number): Result | undefined => {
      const other = next[place]!;
      if (other >= count || at[place]! < 0 || at[other]! < 0) return undefined;
      return results.get(at[place]! * IDS + at[other]!);
    };
    const enqueue = (place: number): void => {
      const result = place < 0 ? undefined : resultAt(place);
      if (result !== undefined) queue.push(result.rank * PLACES + place);
    };

    for (let place = 0; place < count; place++) enqueue(place);
    for (let entry = queue.pop(); entry !== undefined; entry = queue.pop()) {
      const place = entry % PLACES;
      const result = resultAt(place);
      // The pair that was put in line may be gone by now.
      if (result === undefined || result.rank !== (entry - place) / PLACES) continue;
      const merged = next[place]!;
      at[place] = result.piece;
      at[merged] = -1;
      next[place] = next[merged]!;
      if (next[place]! < count) previous[next[place]!] = place;
      enqueue(previous[place]!);
      enqueue(place);
    }

    const out: string[] = [];
    for (let place = 0; place < count; place = next[place]!) {
      out.push(pieces[at[place]!] ?? characters[place]!);
    }
    return out;
  };
}

/** A binary heap of numbers, the least on top. */
class MinHeap {
  readonly #items: number[] = [];

  push(item: number): void {
    const items = this.#items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (items[parent]! <= item) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): number | undefined {
    const items = this.#items;
    const top = items[0];
    const item = items.pop();
    if (item === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= item) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = item;
    return top;
  }
}
