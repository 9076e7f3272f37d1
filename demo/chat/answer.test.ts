import type { ChatChunkChoice, QuireError } from "quire";
import { describe, expect, test } from "vitest";
import { addChunk, awaitAnswer, endWith, isUsable } from "./answer.ts";

function chunk(content: string, numTokens: number, finish: "stop" | "length" | null = null) {
  const choice: ChatChunkChoice = {
    index: 0,
    delta: { content },
    logprobs: null,
    finish_reason: finish,
    token_ids: Array.from({ length: numTokens }, (_, i) => i),
  };
  return choice;
}

const errorOf = (code: QuireError["code"]) =>
  Object.assign(new Error(code), { code, data: {} }) as QuireError;

describe("addChunk", () => {
  test("collects text, tokens, times and the end", () => {
    let answer = awaitAnswer(2);
    answer = addChunk(answer, chunk("", 0), 50);
    expect(answer).toMatchObject({ number: 2, state: "streaming", firstTokenMs: undefined });
    answer = addChunk(answer, chunk("Hel", 1), 100);
    expect(answer).toMatchObject({ firstTokenMs: 100, rate: undefined, numTokens: 1 });
    answer = addChunk(answer, chunk("lo", 2), 300);
    answer = addChunk(answer, chunk("", 0, "stop"), 900);
    expect(answer).toMatchObject({ state: "stop", text: "Hello", numTokens: 3, firstTokenMs: 100 });
    expect(answer.rate).toBeCloseTo(10);
  });
});

describe("endWith", () => {
  const whole = addChunk(awaitAnswer(1), chunk("done", 1, "length"), 5);
  const half = addChunk(awaitAnswer(2), chunk("do", 1), 5);
  const empty = awaitAnswer(3);

  test("leaves whole answers alone; one of the others tells the error", () => {
    const error = errorOf("out-of-memory");
    const ended = endWith([whole, half, empty], error);
    expect(ended.map(({ state }) => state)).toEqual(["length", "failed", "failed"]);
    expect(ended.map((answer) => answer.error)).toEqual([undefined, error, undefined]);
    expect(ended.map(isUsable)).toEqual([true, false, false]);
  });

  test.each(["aborted", "disposed"] as const)("%s is a stop: what came can be built on", (code) => {
    const ended = endWith([whole, half, empty], errorOf(code));
    expect(ended.map(({ state }) => state)).toEqual(["length", "stopped", "stopped"]);
    expect(ended.map(isUsable)).toEqual([true, true, false]);
  });
});
