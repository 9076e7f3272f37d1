/**
 * Prints answers that come at the same time so that they can be read: the first unfinished one is
 * printed as it comes, the others wait their turn, and what they have by then comes at once.
 */
export class ConversationPrinter {
  /** @type {{ title: string, pending: string, ended: boolean, opened: boolean, note?: string }[]} */
  #answers;
  #current = 0;
  #atLineStart = true;
  /** @type {(text: string) => unknown} */
  #write;

  /**
   * @param {readonly string[]} titles one for each answer; a single answer has no title line
   * @param {(text: string) => unknown} write
   */
  constructor(titles, write) {
    this.#answers = titles.map((title) => ({ title, pending: "", ended: false, opened: false }));
    this.#write = write;
  }

  /** @param {number} index @param {string} text */
  push(index, text) {
    const answer = this.#answers[index];
    if (answer === undefined) throw new RangeError(`There is no answer ${index}.`);
    answer.pending += text;
    this.#flush();
  }

  /** @param {number} index @param {string} [note] such as an error, on a line of its own */
  end(index, note) {
    const answer = this.#answers[index];
    if (answer === undefined) throw new RangeError(`There is no answer ${index}.`);
    if (note !== undefined) answer.note = note;
    answer.ended = true;
    this.#flush();
  }

  #flush() {
    for (;;) {
      const answer = this.#answers[this.#current];
      if (answer === undefined) return;
      if (!answer.opened && (answer.pending !== "" || answer.ended)) {
        answer.opened = true;
        if (this.#answers.length > 1) this.#print(`[${this.#current + 1}] ${answer.title}\n`);
      }
      this.#print(answer.pending);
      answer.pending = "";
      if (!answer.ended) return;
      if (!this.#atLineStart) this.#print("\n");
      if (answer.note !== undefined) this.#print(`[${answer.note}]\n`);
      if (this.#answers.length > 1) this.#print("\n");
      this.#current += 1;
    }
  }

  /** @param {string} text */
  #print(text) {
    if (text === "") return;
    this.#write(text);
    this.#atLineStart = text.endsWith("\n");
  }
}
