import type { GeneratedAnswer } from "./answerMemory.ts";
import type { ChatMessage } from "./chatMessage.ts";
import type { StandIns } from "./standIns.ts";

/** A generated answer and where its text stands in a prompt, in UTF-16 units. */
export interface PlacedAnswer {
  readonly answer: GeneratedAnswer;
  readonly start: number;
  readonly end: number;
}

export interface AnswerSearch {
  readonly messages: readonly ChatMessage[];
  /** What the template makes of the messages. */
  readonly prompt: string;
  /** The template, on the same messages with other contents. */
  readonly render: (messages: readonly ChatMessage[]) => string;
  /** Those that hide the control texts of `messages`. */
  readonly standIns: StandIns;
  readonly recall: (text: string) => GeneratedAnswer | undefined;
}

/**
 * Finds the assistant's turns that were generated here, at their places in the prompt, in order.
 *
 * The template is run once more with one private-use character for each of them, which shows what it
 * writes around them. As far as that and the turns' own texts are the prompt, the places are certain. The
 * rest is left out: a template that trims, cuts or moves a turn gets its text tokenised like any other.
 *
 * @param messages with their control texts hidden already
 */
export function findAnswers(search: AnswerSearch): readonly PlacedAnswer[] {
  const { messages, prompt, render, standIns, recall } = search;
  const found = new Map<string, { readonly answer: GeneratedAnswer; readonly content: string }>();
  const probed = messages.map((message) => {
    const { role, content } = message;
    const answer = role === "assistant" ? recall(standIns.restore(content)) : undefined;
    const standIn = answer && standIns.take();
    if (answer === undefined || standIn === undefined) return message;
    found.set(standIn, { answer, content });
    return { role, content: standIn };
  });
  if (found.size === 0) return [];

  const places: PlacedAnswer[] = [];
  const probe = renderOrNothing(render, probed);
  let read = 0; // of the probe
  let end = 0; // of what is certain in the prompt
  for (const { 0: character, index } of probe.matchAll(/[\uE000-\uF8FF]/g)) {
    const turn = found.get(character);
    if (turn === undefined) continue; // hides a control text
    const between = probe.slice(read, index);
    if (!prompt.startsWith(between + turn.content, end)) break;
    const start = end + between.length;
    end = start + turn.content.length;
    places.push({ answer: turn.answer, start, end });
    read = index + 1;
  }
  return places;
}

/** A template may refuse what stands in for the answers: then no place is certain. */
function renderOrNothing(render: AnswerSearch["render"], messages: readonly ChatMessage[]): string {
  try {
    return render(messages);
  } catch {
    return "";
  }
}

/**
 * Tokens of a prompt that holds answers. An answer goes in as its tokens where it follows the token that
 * it followed when it was generated; from the first one on that does not, all is text.
 *
 * @param encode of text, which may go on after other text
 */
export function encodeAround(
  prompt: string,
  answers: readonly PlacedAnswer[],
  encode: (text: string, continuesText: boolean) => readonly number[],
): number[] {
  const ids: number[] = [];
  const append = (tokens: readonly number[]) => {
    for (const id of tokens) ids.push(id);
  };
  let done = 0; // UTF-16 units of the prompt
  for (const { answer, start, end } of answers) {
    const before = encode(prompt.slice(done, start), done > 0);
    if (before.at(-1) !== answer.after) break;
    append(before);
    append(answer.tokens);
    done = end;
  }
  append(encode(prompt.slice(done), done > 0));
  return ids;
}
