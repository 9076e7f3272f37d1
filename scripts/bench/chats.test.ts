import { expect, test } from "vitest";
import { CHAT_CASES, LOAD_PROMPT } from "./chats.mjs";

test("no prompt is asked twice, and none starts like another but for a shared system prompt", () => {
  const { shared, ...plain } = CHAT_CASES;
  const starts = [LOAD_PROMPT, ...Object.values(plain).flat()].map((prompt) =>
    prompt.replace("<|im_start|>user\n", "").slice(0, 4),
  );
  expect(new Set(starts).size).toBe(starts.length);
  expect(new Set(shared.map((prompt) => prompt.split("<|im_start|>user")[0])).size).toBe(1);
  expect(new Set(shared).size).toBe(shared.length);
});
