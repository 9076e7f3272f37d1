import { type Chat, MAX_TOKENS, TEMPERATURE } from "../chat/chat.ts";

/** System prompt and sampling of one chat. They hold from the next message on. */
export function ChatSettings({ chat }: { readonly chat: Chat }) {
  const id = (name: string) => `${name}-${chat.id}`;
  return (
    <fieldset class="chat-settings">
      <legend class="visually-hidden">Settings of chat {chat.id}</legend>
      <div class="field is-wide">
        <label for={id("system")}>System</label>
        <input
          id={id("system")}
          type="text"
          autocomplete="off"
          placeholder="You are …"
          value={chat.system}
          onInput={(event) => {
            chat.system.value = event.currentTarget.value;
          }}
        />
      </div>
      <div class="field">
        <label for={id("temperature")}>Temperature</label>
        <input
          id={id("temperature")}
          type="range"
          min={TEMPERATURE.min}
          max={TEMPERATURE.max}
          step={TEMPERATURE.step}
          value={chat.temperature}
          onInput={(event) => {
            chat.temperature.value = event.currentTarget.valueAsNumber;
          }}
        />
        <output for={id("temperature")}>{chat.temperature.value.toFixed(1)}</output>
      </div>
      <div class="field">
        <label for={id("tokens")}>Most tokens</label>
        <input
          id={id("tokens")}
          type="number"
          min={MAX_TOKENS.min}
          max={MAX_TOKENS.max}
          step={1}
          value={chat.maxTokens}
          onChange={(event) => {
            const { currentTarget: input } = event;
            if (input.validity.valid && input.value !== "") {
              chat.maxTokens.value = input.valueAsNumber;
            } else {
              input.value = String(chat.maxTokens.value);
            }
          }}
        />
      </div>
    </fieldset>
  );
}
