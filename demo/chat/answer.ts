import type { ChatChunkChoice, CompletionUsage, QuireError } from "quire";

/** `waiting`: no token yet. The last four are ends. */
export type AnswerState = "waiting" | "streaming" | "stop" | "length" | "stopped" | "failed";

/** One answer of the model, as the page shows it. */
export interface Answer {
  /** From 1, among those to the same question. */
  readonly number: number;
  readonly state: AnswerState;
  readonly text: string;
  /** Of several answers that failed together, the first has it. */
  readonly error: QuireError | undefined;
  readonly numTokens: number;
  /** Milliseconds from sending to the first token; undefined until then. */
  readonly firstTokenMs: number | undefined;
  /** Tokens a second from the first to the last token; undefined under two tokens. */
  readonly rate: number | undefined;
  /** Of all answers together, with the first of them; undefined until they are whole. */
  readonly usage: CompletionUsage | undefined;
}

/** An answer that is still to come. */
export function awaitAnswer(number: number): Answer {
  return {
    number,
    state: "waiting",
    text: "",
    error: undefined,
    numTokens: 0,
    firstTokenMs: undefined,
    rate: undefined,
    usage: undefined,
  };
}

/** True where the model has said something that a later request may build on. */
export function isUsable({ state, text }: Answer): boolean {
  return text !== "" && state !== "failed";
}

/** The answer with what a chunk adds, so many milliseconds after the question was sent. */
export function addChunk(answer: Answer, choice: ChatChunkChoice, sinceStart: number): Answer {
  const count = choice.token_ids?.length ?? 0;
  const numTokens = answer.numTokens + count;
  const firstTokenMs = answer.firstTokenMs ?? (numTokens > 0 ? sinceStart : undefined);
  const elapsed = sinceStart - (firstTokenMs ?? sinceStart);
  return {
    ...answer,
    state: choice.finish_reason ?? "streaming",
    text: answer.text + (choice.delta.content ?? ""),
    numTokens,
    firstTokenMs,
    rate: count > 0 && elapsed > 0 ? ((numTokens - 1) * 1000) / elapsed : answer.rate,
  };
}

/** Answers whose request ended with an error: those that were whole by then stay as they are. */
export function endWith(answers: readonly Answer[], error: QuireError): readonly Answer[] {
  // The user stopped it, or loaded another model.
  const isStop = error.code === "aborted" || error.code === "disposed";
  const isOpen = ({ state }: Answer) => state === "waiting" || state === "streaming";
  const first = answers.find(isOpen);
  return answers.map((answer) => {
    if (!isOpen(answer)) return answer;
    const state = isStop ? "stopped" : "failed";
    return { ...answer, state, error: answer === first ? error : undefined };
  });
}
