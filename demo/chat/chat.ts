import { signal } from "@preact/signals";
import type { ChatMessage, QuireEngine } from "quire";
import { TokenMeter } from "./tokenMeter.ts";
import { Turn } from "./turn.ts";

/** Long enough for an even number at one token a second. */
const RATE_WINDOW_MS = 10_000;

export const TEMPERATURE = { min: 0, max: 2, step: 0.1, default: 0.7 } as const;
/** Answers to a message, side by side. */
export const NUM_ANSWERS = { max: 4, default: 1 } as const;
export const MAX_TOKENS = { min: 1, max: 100_000, default: 512 } as const;

/** One conversation and its settings. */
export class Chat {
  /** Small number for people; unique among the chats on the page. */
  readonly id: number;
  readonly system = signal("");
  readonly temperature = signal<number>(TEMPERATURE.default);
  readonly maxTokens = signal<number>(MAX_TOKENS.default);
  /** Answers to the next message. */
  readonly numAnswers = signal<number>(NUM_ANSWERS.default);
  readonly draft = signal("");
  readonly turns = signal<readonly Turn[]>([]);
  readonly isBusy = signal(false);
  /** Tokens a second of late; undefined while there are none. */
  readonly rate = signal<number | undefined>(undefined);
  readonly #meter = new TokenMeter(RATE_WINDOW_MS);
  #running: AbortController | undefined;

  constructor(id: number) {
    this.id = id;
  }

  /**
   * Asks the model and resolves when the answers have ended, however. A busy chat takes nothing. Of
   * earlier answers among which nobody has chosen, the first is kept.
   */
  async send(engine: QuireEngine, text: string): Promise<Turn | undefined> {
    if (this.isBusy.value || text.trim() === "") return undefined;
    const turn = new Turn(text, this.numAnswers.value);
    for (const earlier of this.turns.value) {
      if (earlier.answers.value.length > 1 && earlier.kept) earlier.choose(earlier.kept);
    }
    const messages = this.#messages(turn);
    this.turns.value = [...this.turns.value, turn];
    this.isBusy.value = true;
    const controller = new AbortController();
    this.#running = controller;
    await turn.run(
      engine,
      {
        messages,
        temperature: this.temperature.value,
        max_completion_tokens: this.maxTokens.value,
        signal: controller.signal,
      },
      (at, count) => this.#meter.add(at, count),
    );
    this.#running = undefined;
    this.isBusy.value = false;
    this.#meter.reset();
    this.rate.value = undefined;
    return turn;
  }

  /** Asks once more what got no whole answer. */
  async retry(engine: QuireEngine, turn: Turn): Promise<Turn | undefined> {
    if (this.isBusy.value) return undefined;
    this.turns.value = this.turns.value.filter((other) => other !== turn);
    return this.send(engine, turn.question);
  }

  stop(): void {
    this.#running?.abort();
  }

  clear(): void {
    this.stop();
    this.turns.value = [];
  }

  /** Renews `rate`. */
  tick(now: number): void {
    if (this.isBusy.value) this.rate.value = this.#meter.rate(now);
  }

  /** Turns without an answer are left out: many templates insist on question, answer, question. */
  #messages(turn: Turn): ChatMessage[] {
    const system = this.system.value.trim();
    return [
      ...(system === "" ? [] : [{ role: "system", content: system } as const]),
      ...this.turns.value.flatMap(({ question, kept }): ChatMessage[] => {
        if (kept === undefined) return [];
        return [
          { role: "user", content: question },
          { role: "assistant", content: kept.text },
        ];
      }),
      { role: "user", content: turn.question },
    ];
  }
}
