/** A piece of a text: a token that stands in it by name, or the text between such tokens. */
export type Fragment = string | number;

/**
 * Finds tokens that are written out in a text, such as `<|im_end|>`.
 * Where tokens overlap, the longer one (in UTF-8) wins, then the one further left, as in llama.cpp.
 */
export class MarkedTokens {
  readonly #ids: ReadonlyMap<string, number>;
  /** The tokens' texts, the longest first. */
  readonly #byLength: readonly string[];
  /** The same in the order of their UTF-16 units: those that begin alike stand side by side. */
  readonly #sorted: readonly string[];

  /** `ids` by the tokens' texts; empty texts are ignored. */
  constructor(ids: ReadonlyMap<string, number>) {
    const encoder = new TextEncoder();
    const texts = [...ids.keys()].filter((text) => text !== "");
    const byteLength = new Map(texts.map((text) => [text, encoder.encode(text).length]));
    this.#ids = ids;
    this.#byLength = [...texts].sort((a, b) => byteLength.get(b)! - byteLength.get(a)!);
    this.#sorted = [...texts].sort((a, b) => (a < b ? -1 : 1));
  }

  /** Cuts a text at its marked tokens. No fragment is empty. */
  split(text: string): readonly Fragment[] {
    if (text === "") return [];
    let fragments: Fragment[] = [text];
    const present = this.#present(text);
    if (present.size === 0) return fragments;
    for (const mark of this.#byLength) {
      if (!present.has(mark)) continue;
      const id = this.#ids.get(mark)!;
      fragments = fragments.flatMap((fragment) =>
        typeof fragment === "string" ? cut(fragment, mark, id) : [fragment],
      );
    }
    return fragments;
  }

  /** The tokens that occur somewhere in the text, in one pass over it. */
  #present(text: string): ReadonlySet<string> {
    const sorted = this.#sorted;
    const present = new Set<string>();
    for (let start = 0; start < text.length; start++) {
      // The tokens from `low` to `high` begin with the `depth` units from `start` on. No index of
      // the tokens' units is built: it would take many times the space of the texts.
      let low = 0;
      let high = sorted.length;
      for (let depth = 0; low < high; depth++) {
        if (sorted[low]!.length === depth) present.add(sorted[low++]!);
        if (start + depth === text.length) break;
        const unit = text.charCodeAt(start + depth);
        low = this.#bound(unit, depth, low, high);
        high = this.#bound(unit + 1, depth, low, high);
      }
    }
    return present;
  }

  /** The first of the tokens from `low` to `high` whose unit at `depth` is `unit` or more. */
  #bound(unit: number, depth: number, low: number, high: number): number {
    while (low < high) {
      const middle = (low + high) >> 1;
      // Past a text's end the unit is NaN, which is less: a text stands before its continuations.
      if (this.#sorted[middle]!.charCodeAt(depth) >= unit) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function cut(text: string, mark: string, id: number): Fragment[] {
  const fragments: Fragment[] = [];
  let start = 0;
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, start)) {
    if (at > start) fragments.push(text.slice(start, at));
    fragments.push(id);
    start = at + mark.length;
  }
  if (start < text.length) fragments.push(text.slice(start));
  return fragments;
}
