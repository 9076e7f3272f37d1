import { useLayoutEffect } from "preact/hooks";
import { type Answer, isUsable } from "../chat/answer.ts";
import type { Turn } from "../chat/turn.ts";
import { AnswerView } from "./AnswerView.tsx";

/** A question and its answers, side by side where there is room. Only a turn that grows is rendered anew. */
export function TurnView({
  turn,
  isBusy,
  onGrow,
  onRetry,
  onChoose,
}: {
  readonly turn: Turn;
  readonly isBusy: boolean;
  readonly onGrow: () => void;
  readonly onRetry: () => void;
  readonly onChoose: (answer: Answer) => void;
}) {
  const answers = turn.answers.value;
  const count = answers.length;
  useLayoutEffect(onGrow, [answers]);
  return (
    <article class="turn">
      <div class="question">
        <span class="visually-hidden">You: </span>
        {turn.question}
      </div>
      <div class="answers" data-count={count}>
        {answers.map((answer) => (
          <AnswerView
            key={answer.number}
            answer={answer}
            count={count}
            canChoose={!isBusy && isUsable(answer)}
            onRetry={answer.error === undefined ? undefined : onRetry}
            onChoose={() => onChoose(answer)}
          />
        ))}
      </div>
    </article>
  );
}
