/** An answer as it was generated: its text does not tell how it was cut into tokens. */
export interface GeneratedAnswer {
  readonly text: string;
  readonly tokens: readonly number[];
  /** The last token of the prompt that it followed. */
  readonly after: number;
}

/** Tokens of all answers together: some megabytes, and more turns than a KV pool holds. */
const MAX_TOKENS = 2 ** 20;
/** Latest answers of which also a beginning is known: a reader that stopped early has no more. */
const MAX_PARTLY_READ = 32;

interface Entry extends GeneratedAnswer {
  readonly scope: string;
  /** Length of the text after each token, in UTF-16 units. */
  readonly ends: readonly number[];
}

/**
 * The tokens of generated answers by their texts, so that a conversation that is sent again with the
 * answers in it becomes the very tokens that are in the prefix cache. Bounded: the answer that was not
 * used for longest is forgotten first.
 */
export class AnswerMemory {
  readonly #maxTokens: number;
  readonly #entries = new Map<string, Entry>(); // least recently used first
  readonly #latest: Entry[] = [];
  #numTokens = 0;

  constructor(maxTokens = MAX_TOKENS) {
    this.#maxTokens = maxTokens;
  }

  /**
   * @param ends length of the text after each of the answer's tokens; the text may be longer at its end
   *   by what became of an unfinished character
   * @param scope answers are found in their own scope only
   */
  remember(answer: GeneratedAnswer, ends: readonly number[], scope: string): void {
    const { text, tokens } = answer;
    if (text === "" || tokens.length > this.#maxTokens) return;
    const key = keyOf(text, scope);
    this.#forget(key);
    const entry = { ...answer, scope, ends };
    this.#entries.set(key, entry);
    this.#latest.push(entry);
    if (this.#latest.length > MAX_PARTLY_READ) this.#latest.shift();
    this.#numTokens += tokens.length;
    while (this.#numTokens > this.#maxTokens) this.#forget(this.#entries.keys().next().value!);
  }

  /** The answer with this text, or the beginning of a late one that has it and ends with a token. */
  recall(text: string, scope: string): GeneratedAnswer | undefined {
    const key = keyOf(text, scope);
    const entry = this.#entries.get(key);
    if (entry === undefined) return text === "" ? undefined : this.#recallBeginning(text, scope);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry;
  }

  clear(): void {
    this.#entries.clear();
    this.#latest.length = 0;
    this.#numTokens = 0;
  }

  #recallBeginning(text: string, scope: string): GeneratedAnswer | undefined {
    for (const answer of this.#latest.toReversed()) {
      if (answer.scope !== scope || !answer.text.startsWith(text)) continue;
      const last = answer.ends.indexOf(text.length);
      if (last >= 0) return { text, tokens: answer.tokens.slice(0, last + 1), after: answer.after };
    }
    return undefined;
  }

  #forget(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#numTokens -= entry.tokens.length;
  }
}

function keyOf(text: string, scope: string): string {
  return `${scope.length} ${scope}${text}`;
}
