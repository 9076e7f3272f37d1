import { useLayoutEffect } from "preact/hooks";
import type { Answer, Turn } from "../chat/turn.ts";
import { formatDuration, formatRate } from "../text/format.ts";
import { ErrorNotice } from "./ErrorNotice.tsx";
import { Markdown } from "./Markdown.tsx";

/** A question and its answer. Only the turn whose answer grows is rendered anew. */
export function TurnView({
  turn,
  onGrow,
  onRetry,
}: {
  readonly turn: Turn;
  readonly onGrow: () => void;
  readonly onRetry: () => void;
}) {
  const answer = turn.answer.value;
  useLayoutEffect(onGrow, [answer]);
  const { state, error } = answer;
  return (
    <article class="turn">
      <div class="question">
        <span class="visually-hidden">You: </span>
        {turn.question}
      </div>
      <div class="answer" data-state={state}>
        <span class="visually-hidden">Answer: </span>
        <Markdown text={answer.text} />
        {state === "failed" && error !== undefined && <ErrorNotice error={error} />}
        <p class="answer-foot">
          {describe(answer)}
          {(state === "failed" || state === "stopped") && (
            <button type="button" class="quiet" onClick={onRetry}>
              Retry
            </button>
          )}
        </p>
      </div>
    </article>
  );
}

/** One line about an answer: how it ended and how fast it came. */
function describe(answer: Answer): string {
  const { state, numTokens, rate, firstTokenMs, usage } = answer;
  if (state === "waiting") return "Reading the question…";
  const parts: string[] = [];
  if (state === "stopped") parts.push("Stopped");
  if (state === "length") parts.push("Cut off at the most tokens");
  if (numTokens > 0) parts.push(`${numTokens} ${numTokens === 1 ? "token" : "tokens"}`);
  if (rate !== undefined) parts.push(`${formatRate(rate)}/s`);
  if (firstTokenMs !== undefined) parts.push(`first after ${formatDuration(firstTokenMs)}`);
  const cached = usage?.prompt_tokens_details.cached_tokens ?? 0;
  if (cached > 0) parts.push(`${cached} of ${usage?.prompt_tokens} prompt tokens from the cache`);
  return parts.join(" · ");
}
