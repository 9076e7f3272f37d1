import { type Chat, NUM_ANSWERS } from "../chat/chat.ts";
import type { Demo } from "../page/demo.ts";
import { MessageField } from "./MessageField.tsx";

const ANSWER_COUNTS = Array.from({ length: NUM_ANSWERS.max }, (_, i) => i + 1);

/** Where a message is written; with the chat's stop button, and how many answers are wanted. */
export function Composer({ chat, demo }: { readonly chat: Chat; readonly demo: Demo }) {
  const isBusy = chat.isBusy.value;
  const canSend = !isBusy && demo.session.engine !== undefined && chat.draft.value.trim() !== "";
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void demo.send(chat);
      }}
    >
      <MessageField
        id={`message-${chat.id}`}
        label={`Message to chat ${chat.id}`}
        placeholder="Message (Enter sends, Shift+Enter breaks the line)"
        text={chat.draft}
      />
      <div class="composer-buttons">
        {/* aria-disabled keeps the focus where `disabled` would lose it. */}
        <button type="submit" class="primary" aria-disabled={!canSend}>
          Send
        </button>
        <button type="button" aria-disabled={!isBusy} onClick={() => chat.stop()}>
          Stop<span class="visually-hidden"> chat {chat.id}</span>
        </button>
        <select
          aria-label={`Answers to a message of chat ${chat.id}`}
          value={chat.numAnswers.value}
          onChange={(event) => {
            chat.numAnswers.value = Number(event.currentTarget.value);
          }}
        >
          {ANSWER_COUNTS.map((count) => (
            <option key={count} value={count}>
              {count === 1 ? "1 answer" : `${count} answers`}
            </option>
          ))}
        </select>
      </div>
    </form>
  );
}
