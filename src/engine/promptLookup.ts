/** Marks a free entry of the hash tables. */
const EMPTY = -1;

const FIRST_CAPACITY = 64;

/**
 * Drafts by prompt lookup: what followed the sequence's last tokens when they occurred before.
 *
 * The semantics are those of vLLM's n-gram proposer: the longest suffix of minN..maxN tokens that occurs
 * earlier counts, its earliest occurrence, and the tokens after that. The occurrence may overlap the
 * suffix. vLLM searches the whole history each step; here every n-gram of each length is entered once, in
 * a table that knows where it first ended. A token costs maxN - minN + 1 look-ups, whatever the length of
 * the history, and a proposal nothing but its copy. Hits are compared token by token, so the hash decides
 * about speed alone. Memory: 4 bytes a token, and up to 16 for each n.
 */
export class PromptLookup {
  readonly #minN: number;
  readonly #maxN: number;
  #tokens = new Int32Array(FIRST_CAPACITY);
  #numTokens = 0;
  /** One for each n from minN on: ends (exclusive) of first occurrences, by open addressing. */
  readonly #tables: NgramTable[];
  /** Where the longest known suffix first ended; 0 if none is known. */
  #matchEnd = 0;

  /** 1 <= minN <= maxN. */
  constructor(options: { readonly minN: number; readonly maxN: number }) {
    this.#minN = options.minN;
    this.#maxN = options.maxN;
    this.#tables = [];
    for (let n = options.minN; n <= options.maxN; n++) this.#tables.push(new NgramTable(n));
  }

  get numTokens(): number {
    return this.#numTokens;
  }

  /** Appends tokens to the history: the prompt, then what was accepted. */
  append(tokens: readonly number[]): void {
    this.#reserve(this.#numTokens + tokens.length);
    for (const token of tokens) this.#appendOne(token);
  }

  /**
   * The tokens, `k` at most, that may come next; none if no suffix occurred before. The caller keeps `k`
   * within its limits: the context's end, `maxTokens`, the rows of a step.
   */
  propose(k: number): number[] {
    if (this.#matchEnd === 0) return [];
    const end = Math.min(this.#matchEnd + k, this.#numTokens);
    return Array.from(this.#tokens.subarray(this.#matchEnd, end));
  }

  #appendOne(token: number): void {
    const tokens = this.#tokens;
    tokens[this.#numTokens] = token;
    this.#numTokens += 1;
    const end = this.#numTokens;
    this.#matchEnd = 0;
    let hash = 0;
    const longest = Math.min(this.#maxN, end);
    for (let n = 1; n <= longest; n++) {
      hash = mix(hash, tokens[end - n]!);
      if (n < this.#minN) continue;
      const first = this.#tables[n - this.#minN]!.findOrInsert(tokens, end, hash);
      if (first !== end) this.#matchEnd = first;
    }
  }

  #reserve(numTokens: number): void {
    if (numTokens <= this.#tokens.length) return;
    const larger = new Int32Array(Math.max(numTokens, 2 * this.#tokens.length));
    larger.set(this.#tokens.subarray(0, this.#numTokens));
    this.#tokens = larger;
  }
}

/** Where each n-gram of one length first ended. At most half full. */
class NgramTable {
  readonly #n: number;
  #ends = new Int32Array(FIRST_CAPACITY).fill(EMPTY);
  #size = 0;

  constructor(n: number) {
    this.#n = n;
  }

  /** The first end of the n-gram that ends before `end`; `end` itself if it is new, and now known. */
  findOrInsert(tokens: Int32Array, end: number, hash: number): number {
    const mask = this.#ends.length - 1;
    let place = hash & mask;
    for (; this.#ends[place] !== EMPTY; place = (place + 1) & mask) {
      const known = this.#ends[place]!;
      if (isEqual(tokens, known, end, this.#n)) return known;
    }
    this.#ends[place] = end;
    this.#size += 1;
    if (2 * this.#size > this.#ends.length) this.#grow(tokens);
    return end;
  }

  #grow(tokens: Int32Array): void {
    const old = this.#ends;
    this.#ends = new Int32Array(2 * old.length).fill(EMPTY);
    const mask = this.#ends.length - 1;
    for (const end of old) {
      if (end === EMPTY) continue;
      let hash = 0;
      for (let i = 1; i <= this.#n; i++) hash = mix(hash, tokens[end - i]!);
      let place = hash & mask;
      while (this.#ends[place] !== EMPTY) place = (place + 1) & mask;
      this.#ends[place] = end;
    }
  }
}

/** Whether the n tokens before `a` and before `b` are the same. */
function isEqual(tokens: Int32Array, a: number, b: number, n: number): boolean {
  for (let i = 1; i <= n; i++) if (tokens[a - i] !== tokens[b - i]) return false;
  return true;
}

/** Hash of an n-gram and a token before it: multiply and shift, as MurmurHash3 mixes its words. */
function mix(hash: number, token: number): number {
  const mixed = Math.imul(hash ^ token, 0x9e3779b1);
  return Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b) ^ (mixed >>> 13);
}
