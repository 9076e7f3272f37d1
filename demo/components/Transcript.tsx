import { useLayoutEffect, useRef } from "preact/hooks";
import type { Chat } from "../chat/chat.ts";
import type { Demo } from "../page/demo.ts";
import { TurnView } from "./TurnView.tsx";

/** Distance in pixels from the end within which new text keeps the end in view. */
const NEAR_END_PX = 48;

/** What was said in a chat. Follows the newest text unless the reader has scrolled away from it. */
export function Transcript({ chat, demo }: { readonly chat: Chat; readonly demo: Demo }) {
  const log = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const size = useRef("");
  const turns = chat.turns.value;
  const onScroll = () => {
    const element = log.current!;
    // A resize scrolls, too; that is not the reader's doing.
    if (sizeOf(element) !== size.current) return;
    const { scrollHeight, scrollTop, clientHeight } = element;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  };
  const followEnd = () => {
    if (isAtEnd.current && log.current) log.current.scrollTop = log.current.scrollHeight;
  };
  useLayoutEffect(() => {
    isAtEnd.current = true;
    followEnd();
  }, [turns.length]);
  useLayoutEffect(() => {
    const element = log.current!;
    // A narrower chat has longer text.
    const observer = new ResizeObserver(() => {
      size.current = sizeOf(element);
      followEnd();
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return (
    <div
      ref={log}
      class="transcript"
      role="log"
      aria-label={`Messages of chat ${chat.id}`}
      // Half an answer is not read out: only when it is whole.
      aria-live="polite"
      aria-busy={chat.isBusy.value}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must scroll by keyboard, too.
      tabIndex={0}
      onScroll={onScroll}
    >
      {turns.length === 0 && (
        <p class="hint">
          Nothing said yet. All chats run at the same time, from one copy of the model.
        </p>
      )}
      {turns.map((turn) => (
        <TurnView
          key={turn.id}
          turn={turn}
          isBusy={chat.isBusy.value}
          onGrow={followEnd}
          onRetry={() => void demo.retry(chat, turn)}
          onChoose={(answer) => demo.choose(chat, turn, answer)}
        />
      ))}
    </div>
  );
}

function sizeOf({ clientWidth, clientHeight }: Element): string {
  return `${clientWidth} x ${clientHeight}`;
}
