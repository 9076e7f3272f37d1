import { type Signal, signal } from "@preact/signals";
import type { ChatCompletionParams, QuireEngine } from "quire";
import { toQuireError } from "../text/errorAdvice.ts";
import { type Answer, addChunk, awaitAnswer, endWith, isUsable } from "./answer.ts";

let nextId = 1;

/** What the user said once, and the answers to it: several to choose from, or one. */
export class Turn {
  readonly id = nextId++;
  readonly question: string;
  /** Renewed at most once a frame while tokens come. */
  readonly answers: Signal<readonly Answer[]>;
  #frame: number | undefined;

  constructor(question: string, numAnswers: number) {
    this.question = question;
    const answers = Array.from({ length: numAnswers }, (_, i) => awaitAnswer(i + 1));
    this.answers = signal(answers);
  }

  /** The answer that a later request builds on: the chosen one, else the first that says something. */
  get kept(): Answer | undefined {
    return this.answers.value.find(isUsable);
  }

  /** Goes on with one of the answers; the others are forgotten. */
  choose(answer: Answer): void {
    this.answers.value = [answer];
  }

  /** Fetches the answers. Never rejects: the outcome is in them. */
  async run(
    engine: QuireEngine,
    params: Omit<ChatCompletionParams, "stream" | "n">,
    onTokens: (at: number, count: number) => void,
  ): Promise<void> {
    const start = performance.now();
    let answers = this.answers.peek();
    const change = (index: number, next: (answer: Answer) => Answer) => {
      answers = answers.map((answer, i) => (i === index ? next(answer) : answer));
    };
    try {
      const stream = await engine.chat.completions.create({
        ...params,
        n: answers.length,
        stream: true,
        stream_options: { include_usage: true },
        return_token_ids: true,
      });
      for await (const { choices, usage } of stream) {
        if (usage) change(0, (answer) => ({ ...answer, usage }));
        const now = performance.now();
        for (const choice of choices) {
          const count = choice.token_ids?.length ?? 0;
          if (count > 0) onTokens(now, count);
          change(choice.index, (answer) => addChunk(answer, choice, now - start));
        }
        this.#publishSoon(() => answers);
      }
    } catch (thrown) {
      answers = endWith(answers, toQuireError(thrown));
    }
    this.#publish(answers);
  }

  #publishSoon(read: () => readonly Answer[]): void {
    this.#frame ??= requestAnimationFrame(() => this.#publish(read()));
  }

  #publish(answers: readonly Answer[]): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#frame = undefined;
    this.answers.value = answers;
  }
}
