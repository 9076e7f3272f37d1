import { expect, test } from "vitest";
import { timeChats } from "./timing.js";

test("every chat gets its own times, and one that stalls is given up", async () => {
  const chats = await timeChats(
    async (prompt, maxTokens, onToken) => {
      for (let i = 0; i < maxTokens; i++) onToken();
      if (prompt === "silent") await new Promise(() => {});
      return { promptTokens: prompt.length, completionTokens: maxTokens };
    },
    { prompts: ["short", "silent"], maxTokens: 3, stallMs: 50 },
  );
  expect(chats[0]).toMatchObject({ finished: true, promptTokens: 5, completionTokens: 3 });
  expect(chats[1]).toMatchObject({ finished: false, completionTokens: 0 });
  expect(chats.map(({ arrivals }) => arrivals.length)).toEqual([3, 3]);
});

test("what a runtime throws comes out", async () => {
  const fail = () => Promise.reject(new Error("out of slots"));
  await expect(timeChats(fail, { prompts: ["a"], maxTokens: 1, stallMs: 1000 })).rejects.toThrow(
    "out of slots",
  );
});
