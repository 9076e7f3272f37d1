import { expect, test, vi } from "vitest";
import { AnswerMemory } from "../text/answerMemory.ts";
import { encodePrompt } from "./prompt.ts";
import type { GenerateRequest, PromptInput } from "./protocol.ts";

const encode = vi.fn(() => [5]);
const tokenizer = { encode, longestToken: 4, addBos: false };
const chatTemplate = { encode: vi.fn(() => [6]) };

function encodeWithin(maxContext: number, prompt: PromptInput): readonly number[] {
  const parts = { tokenizer, chatTemplate, maxContext } as unknown as Parameters<
    typeof encodePrompt
  >[1];
  return encodePrompt({ prompt } as GenerateRequest, parts, new AnswerMemory());
}

test("a text that cannot fit the context is refused before it is tokenised", () => {
  const text = "x".repeat(40);
  expect(encodeWithin(10, { kind: "text", text })).toEqual([5]);
  encode.mockClear();
  expect(() => encodeWithin(10, { kind: "text", text: `${text}x` })).toThrow(
    expect.objectContaining({ code: "context-overflow" }),
  );
  expect(encode).not.toHaveBeenCalled();
});

test("a chat's template knows what has to fit", () => {
  encodeWithin(10, { kind: "chat", messages: [{ role: "user", content: "a" }] });
  const options = expect.objectContaining({ maxTokens: 10 });
  expect(chatTemplate.encode).toHaveBeenCalledWith(expect.anything(), options);
});
