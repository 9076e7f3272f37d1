import { QuireError } from "../errors.ts";

const FIRST = 0xe000;
const LAST = 0xf8ff;

/**
 * Hides control texts that users wrote, while a template puts their messages into a prompt: each
 * becomes one private-use character that no input has, and gets its text back afterwards.
 */
export class StandIns {
  readonly #marks: readonly string[];
  readonly #taken: ReadonlySet<string>;
  readonly #standInOf = new Map<string, string>();
  readonly #textOf = new Map<string, string>();
  readonly #whole: RegExp | undefined;
  #next = FIRST;

  /** `inputs`: every text that may end up in the rendered one. */
  constructor(marks: Iterable<string>, inputs: Iterable<string>) {
    this.#marks = [...marks].filter((mark) => mark !== "").sort((a, b) => b.length - a.length);
    const taken = new Set<string>();
    for (const input of inputs)
      for (const found of input.match(/[\uE000-\uF8FF]/g) ?? []) taken.add(found);
    this.#taken = taken;
    if (this.#marks.length > 0) {
      this.#whole = new RegExp(this.#marks.map(escapePattern).join("|"), "g");
    }
  }

  /**
   * Swaps control texts for stand-ins, and also a beginning or an end of one at the text's edges,
   * which the template could complete. Space at the edges does not count: templates trim.
   */
  hide(text: string): string {
    if (this.#whole === undefined) return text;
    const hidden = text.replace(this.#whole, (mark) => this.#standIn(mark));
    return this.#hideStart(this.#hideEnd(hidden));
  }

  /** A character that no input has and that stands for nothing else; undefined if none is left. */
  take(): string | undefined {
    while (this.#next <= LAST) {
      const character = String.fromCharCode(this.#next++);
      if (!this.#taken.has(character)) return character;
    }
    return undefined;
  }

  /** Puts the hidden texts back. */
  restore(text: string): string {
    if (this.#textOf.size === 0) return text;
    return text.replace(/[\uE000-\uF8FF]/g, (found) => this.#textOf.get(found) ?? found);
  }

  #hideEnd(text: string): string {
    const trimmed = text.trimEnd();
    const length = this.#longestOverlap((mark, k) => trimmed.endsWith(mark.slice(0, k)));
    if (length === 0) return text;
    const start = trimmed.length - length;
    return text.slice(0, start) + this.#standIn(trimmed.slice(start)) + text.slice(trimmed.length);
  }

  #hideStart(text: string): string {
    const trimmed = text.trimStart();
    const length = this.#longestOverlap((mark, k) => trimmed.startsWith(mark.slice(-k)));
    if (length === 0) return text;
    const start = text.length - trimmed.length;
    return text.slice(0, start) + this.#standIn(trimmed.slice(0, length)) + trimmed.slice(length);
  }

  #longestOverlap(overlaps: (mark: string, length: number) => boolean): number {
    let longest = 0;
    for (const mark of this.#marks) {
      for (let k = mark.length - 1; k > longest; k--) if (overlaps(mark, k)) longest = k;
    }
    return longest;
  }

  #standIn(text: string): string {
    const known = this.#standInOf.get(text);
    if (known !== undefined) return known;
    const standIn = this.take();
    if (standIn !== undefined) {
      this.#standInOf.set(text, standIn);
      this.#textOf.set(standIn, text);
      return standIn;
    }
    throw new QuireError(
      "invalid-argument",
      "The messages hold control texts and nearly every private-use character (U+E000 to U+F8FF), so that none is left to keep the control texts apart. Remove private-use characters.",
    );
  }
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
