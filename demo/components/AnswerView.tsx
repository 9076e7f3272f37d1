import type { Answer } from "../chat/answer.ts";
import { formatDuration, formatRate } from "../text/format.ts";
import { ErrorNotice } from "./ErrorNotice.tsx";
import { Markdown } from "./Markdown.tsx";

/** One answer: its text, how it went, and what can be done with it. */
export function AnswerView({
  answer,
  count,
  canChoose,
  onRetry,
  onChoose,
}: {
  readonly answer: Answer;
  /** Answers to the question: among several, one can be chosen. */
  readonly count: number;
  readonly canChoose: boolean;
  /** Undefined where there is nothing to ask again. */
  readonly onRetry: (() => void) | undefined;
  readonly onChoose: () => void;
}) {
  const { number, state, text, error } = answer;
  return (
    <div class="answer" data-state={state}>
      <span class="visually-hidden">{count === 1 ? "Answer: " : `Answer ${number}: `}</span>
      <Markdown text={text} />
      {state === "failed" && error !== undefined && <ErrorNotice error={error} />}
      <p class="answer-foot">
        <span>{describe(answer)}</span>
        {onRetry !== undefined && (
          <button type="button" class="quiet" onClick={onRetry}>
            Retry
          </button>
        )}
        {count > 1 && (
          <button
            type="button"
            class="choose"
            aria-disabled={!canChoose}
            onClick={() => canChoose && onChoose()}
          >
            Go on with this<span class="visually-hidden"> answer, number {number}</span>
          </button>
        )}
      </p>
    </div>
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
