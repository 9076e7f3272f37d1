/** A piece of a text: a token that stands in it by name, or the text between such tokens. */
export type Fragment = string | number;

interface TrieNode {
  id?: number;
  readonly children: Map<number, TrieNode>;
}

/**
 * Finds tokens that are written out in a text, such as `<|im_end|>`.
 * Where tokens overlap, the longer one (in UTF-8) wins, then the one further left, as in llama.cpp.
 */
export class MarkedTokens {
  readonly #texts: ReadonlyMap<number, string>;
  /** Ids, longest text first. */
  readonly #order: readonly number[];
  readonly #root: TrieNode = { children: new Map() };

  /** `ids` by the tokens' texts; empty texts are ignored. */
  constructor(ids: ReadonlyMap<string, number>) {
    const entries = [...ids].filter(([text]) => text !== "");
    this.#texts = new Map(entries.map(([text, id]) => [id, text]));
    const byteLength = new Map(
      entries.map(([text, id]) => [id, new TextEncoder().encode(text).length]),
    );
    this.#order = [...byteLength.keys()].sort((a, b) => byteLength.get(b)! - byteLength.get(a)!);
    for (const [text, id] of entries) this.#insert(text, id);
  }

  /** Cuts a text at its marked tokens. No fragment is empty. */
  split(text: string): readonly Fragment[] {
    if (text === "") return [];
    let fragments: Fragment[] = [text];
    const present = this.#present(text);
    if (present.size === 0) return fragments;
    for (const id of this.#order) {
      if (!present.has(id)) continue;
      const mark = this.#texts.get(id)!;
      fragments = fragments.flatMap((fragment) =>
        typeof fragment === "string" ? cut(fragment, mark, id) : [fragment],
      );
    }
    return fragments;
  }

  /** Ids of the tokens that occur somewhere in the text, in one pass over it. */
  #present(text: string): ReadonlySet<number> {
    const present = new Set<number>();
    for (let start = 0; start < text.length; start++) {
      let node = this.#root.children.get(text.charCodeAt(start));
      for (let at = start + 1; node !== undefined; at++) {
        if (node.id !== undefined) present.add(node.id);
        node = at < text.length ? node.children.get(text.charCodeAt(at)) : undefined;
      }
    }
    return present;
  }

  #insert(text: string, id: number): void {
    let node = this.#root;
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at);
      let child = node.children.get(unit);
      if (child === undefined) {
        child = { children: new Map() };
        node.children.set(unit, child);
      }
      node = child;
    }
    node.id = id;
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
