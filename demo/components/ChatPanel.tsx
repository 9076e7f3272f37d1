import type { Chat } from "../chat/chat.ts";
import type { Demo } from "../page/demo.ts";
import { formatRate } from "../text/format.ts";
import { ChatSettings } from "./ChatSettings.tsx";
import { Composer } from "./Composer.tsx";
import { Transcript } from "./Transcript.tsx";

/** One chat: settings, what was said, and the field to say more. */
export function ChatPanel({
  chat,
  demo,
  onRemove,
}: {
  readonly chat: Chat;
  readonly demo: Demo;
  readonly onRemove: (() => void) | undefined;
}) {
  const name = `Chat ${chat.id}`;
  return (
    <section class="chat" aria-label={name}>
      <div class="chat-head">
        <h2>{name}</h2>
        <Rate chat={chat} />
        <button type="button" class="quiet" onClick={() => chat.clear()}>
          Clear<span class="visually-hidden"> {name}</span>
        </button>
        <button
          type="button"
          class="quiet"
          disabled={onRemove === undefined}
          onClick={() => onRemove?.()}
        >
          Remove<span class="visually-hidden"> {name}</span>
        </button>
      </div>
      <ChatSettings chat={chat} />
      <Transcript chat={chat} demo={demo} />
      <Composer chat={chat} demo={demo} />
    </section>
  );
}

function Rate({ chat }: { readonly chat: Chat }) {
  const rate = chat.rate.value;
  return (
    <p class="rate" data-testid={`rate-${chat.id}`}>
      {rate === undefined
        ? // A line without text would have another baseline.
          chat.isBusy.value
          ? "…"
          : "\u00a0"
        : `${formatRate(rate)} tokens/s`}
    </p>
  );
}
