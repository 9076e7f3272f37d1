import { signal } from "@preact/signals";
import type { ChatCompletionParams, CompletionUsage, QuireEngine, QuireError } from "quire";
import { toQuireError } from "../text/errorAdvice.ts";

/** `waiting`: no token yet. The last four are ends. */
export type AnswerState = "waiting" | "streaming" | "stop" | "length" | "stopped" | "failed";

/** The model's side of a turn, as the page shows it. */
export interface Answer {
  readonly state: AnswerState;
  readonly text: string;
  readonly error: QuireError | undefined;
  readonly numTokens: number;
  /** Milliseconds from sending to the first token; undefined until then. */
  readonly firstTokenMs: number | undefined;
  /** Tokens a second from the first to the last token; undefined under two tokens. */
  readonly rate: number | undefined;
  /** Undefined until the answer is whole. */
  readonly usage: CompletionUsage | undefined;
}

const EMPTY: Answer = {
  state: "waiting",
  text: "",
  error: undefined,
  numTokens: 0,
  firstTokenMs: undefined,
  rate: undefined,
  usage: undefined,
};

let nextId = 1;

/** What the user said once, and the answer to it. */
export class Turn {
  readonly id = nextId++;
  readonly question: string;
  /** Renewed at most once a frame while tokens come. */
  readonly answer = signal<Answer>(EMPTY);
  #frame: number | undefined;

  constructor(question: string) {
    this.question = question;
  }

  /** True where the model has said something that a later request may build on. */
  get isUsable(): boolean {
    const { state, text } = this.answer.value;
    return text !== "" && state !== "failed";
  }

  /** Fetches the answer. Never rejects: the outcome is in `answer`. */
  async run(
    engine: QuireEngine,
    params: Omit<ChatCompletionParams, "stream">,
    onTokens: (at: number, count: number) => void,
  ): Promise<void> {
    const start = performance.now();
    let answer = EMPTY;
    let firstAt = start;
    try {
      const stream = await engine.chat.completions.create({
        ...params,
        stream: true,
        stream_options: { include_usage: true },
        return_token_ids: true,
      });
      for await (const { choices, usage } of stream) {
        if (usage) answer = { ...answer, usage };
        const choice = choices[0];
        if (choice === undefined) continue;
        const now = performance.now();
        const count = choice.token_ids?.length ?? 0;
        if (count > 0) onTokens(now, count);
        if (answer.numTokens === 0 && count > 0) firstAt = now;
        const numTokens = answer.numTokens + count;
        answer = {
          ...answer,
          state: choice.finish_reason ?? "streaming",
          text: answer.text + (choice.delta.content ?? ""),
          numTokens,
          firstTokenMs: numTokens > 0 ? firstAt - start : undefined,
          rate:
            count > 0 && now > firstAt ? ((numTokens - 1) * 1000) / (now - firstAt) : answer.rate,
        };
        this.#publishSoon(() => answer);
      }
    } catch (thrown) {
      const error = toQuireError(thrown);
      // The user stopped it, or loaded another model.
      const isStop = error.code === "aborted" || error.code === "disposed";
      answer = { ...answer, state: isStop ? "stopped" : "failed", error };
    }
    this.#publish(answer);
  }

  #publishSoon(read: () => Answer): void {
    this.#frame ??= requestAnimationFrame(() => this.#publish(read()));
  }

  #publish(answer: Answer): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#frame = undefined;
    this.answer.value = answer;
  }
}
