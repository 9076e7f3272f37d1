import { useRef } from "preact/hooks";
import type { Chat } from "../chat/chat.ts";
import type { Demo } from "../page/demo.ts";
import { ChatPanel } from "./ChatPanel.tsx";

/** Columns on a wide screen by number of chats; narrow screens have fewer. */
function columnsFor(count: number): number {
  if (count <= 3) return count;
  return count === 4 ? 2 : count <= 9 ? 3 : 4;
}

/** The chats side by side. */
export function ChatGrid({ demo }: { readonly demo: Demo }) {
  const grid = useRef<HTMLDivElement>(null);
  const list = demo.chats.list.value;
  const remove = (chat: Chat) => {
    const at = list.indexOf(chat);
    demo.chats.remove(chat);
    // The button that had the focus is gone: its neighbour's message field takes it.
    const next = demo.chats.list.value[Math.min(at, demo.chats.list.value.length - 1)];
    if (next !== undefined) document.getElementById(`message-${next.id}`)?.focus();
  };
  return (
    <div class="chats" data-columns={columnsFor(list.length)} ref={grid}>
      {list.map((chat) => (
        <ChatPanel
          key={chat.id}
          chat={chat}
          demo={demo}
          onRemove={list.length > 1 ? () => remove(chat) : undefined}
        />
      ))}
    </div>
  );
}
