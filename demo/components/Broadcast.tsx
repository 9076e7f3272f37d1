import { useSignal } from "@preact/signals";
import type { Demo } from "../page/demo.ts";
import { MessageField } from "./MessageField.tsx";

/** What concerns all chats: one message to all, stop all, one chat more. */
export function Broadcast({ demo }: { readonly demo: Demo }) {
  const text = useSignal("");
  const { chats } = demo;
  const isBusy = chats.isAnyBusy.value;
  const canSend =
    demo.session.engine !== undefined &&
    text.value.trim() !== "" &&
    chats.list.value.some((chat) => !chat.isBusy.value);
  const add = () => {
    const chat = chats.add();
    if (chat === undefined) return;
    // After the panel is there.
    requestAnimationFrame(() => document.getElementById(`message-${chat.id}`)?.focus());
  };
  return (
    <footer class="broadcast">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (demo.sendToAll(text.value)) text.value = "";
        }}
      >
        <MessageField
          id="message-all"
          label="Message to all chats"
          placeholder="Message to all chats"
          text={text}
          rows={1}
        />
        <button type="submit" class="primary" aria-disabled={!canSend}>
          Send to all
        </button>
      </form>
      <button type="button" aria-disabled={!isBusy} onClick={() => chats.stopAll()}>
        Stop all
      </button>
      <button type="button" aria-disabled={chats.isFull} onClick={add}>
        Add chat
      </button>
    </footer>
  );
}
