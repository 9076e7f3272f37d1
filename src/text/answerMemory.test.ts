import { describe, expect, test } from "vitest";
import { AnswerMemory } from "./answerMemory.ts";

/** An answer of one token a character: the text's own UTF-16 units. */
function answerOf(text: string, after = 7) {
  const tokens = Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
  return { answer: { text, tokens, after }, ends: tokens.map((_, i) => i + 1) };
}

function remember(memory: AnswerMemory, text: string, scope = ""): void {
  const { answer, ends } = answerOf(text);
  memory.remember(answer, ends, scope);
}

describe("AnswerMemory", () => {
  test("finds an answer by its whole text, in its own scope", () => {
    const memory = new AnswerMemory();
    remember(memory, "Hello", "a");
    expect(memory.recall("Hello", "a")).toMatchObject(answerOf("Hello").answer);
    expect(memory.recall("Hello", "")).toBeUndefined();
    expect(memory.recall("Hello", "b")).toBeUndefined();
    expect(memory.recall("hello", "a")).toBeUndefined();
    memory.clear();
    expect(memory.recall("Hello", "a")).toBeUndefined();
    expect(memory.recall("Hel", "a")).toBeUndefined();
  });

  test("scope and text do not run into each other", () => {
    const memory = new AnswerMemory();
    remember(memory, "bc", "a");
    expect(memory.recall("c", "ab")).toBeUndefined();
    expect(memory.recall("abc", "")).toBeUndefined();
  });

  test("the latest of two answers with one text counts", () => {
    const memory = new AnswerMemory();
    memory.remember({ text: "ab", tokens: [1, 2], after: 7 }, [1, 2], "");
    memory.remember({ text: "ab", tokens: [3], after: 8 }, [2], "");
    expect(memory.recall("ab", "")).toMatchObject({ tokens: [3], after: 8 });
  });

  test("finds the beginning that a reader had, where a token ends", () => {
    const memory = new AnswerMemory();
    // The second token holds half of a character, which the third completes.
    memory.remember({ text: "ab\u00e9cd", tokens: [1, 2, 3, 4], after: 7 }, [2, 2, 3, 5], "");
    expect(memory.recall("ab", "")).toEqual({ text: "ab", tokens: [1], after: 7 });
    expect(memory.recall("ab\u00e9", "")?.tokens).toEqual([1, 2, 3]);
    expect(memory.recall("ab\u00e9c", "")).toBeUndefined();
    expect(memory.recall("a", "")).toBeUndefined();
    expect(memory.recall("", "")).toBeUndefined();
  });

  test("knows beginnings of the latest answers only", () => {
    const memory = new AnswerMemory();
    for (let i = 0; i < 40; i++) remember(memory, `${i}: text`);
    expect(memory.recall("39: ", "")?.tokens).toHaveLength(4);
    expect(memory.recall("8: ", "")?.tokens).toHaveLength(3);
    expect(memory.recall("7: ", "")).toBeUndefined();
    expect(memory.recall("7: text", "")).toBeDefined();
  });

  test("forgets what was not used for longest when it holds too many tokens", () => {
    const memory = new AnswerMemory(12);
    for (const text of ["one1", "two2", "six6"]) remember(memory, text);
    memory.recall("one1", "");
    remember(memory, "ten0");
    expect(memory.recall("one1", "")).toBeDefined();
    expect(memory.recall("six6", "")).toBeDefined();
    remember(memory, "0123456789ab");
    expect(memory.recall("0123456789ab", "")).toBeDefined();
    remember(memory, "longer than the whole memory");
    expect(memory.recall("longer than the whole memory", "")).toBeUndefined();
    expect(memory.recall("0123456789ab", "")).toBeDefined();
    remember(memory, "");
    expect(memory.recall("", "")).toBeUndefined();
  });
});
