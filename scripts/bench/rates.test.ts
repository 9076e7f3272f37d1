import { expect, test } from "vitest";
import { decodeRate, lastFirstToken, totalRate } from "./rates.mjs";

test("one chat decodes what comes after its first token", () => {
  const chat = { arrivals: [500, 600, 700, 800], completionTokens: 4 };
  expect(decodeRate([chat])).toBeCloseTo(10);
  expect(totalRate([chat])).toBeCloseTo(5);
});

test("several chats are counted while all of them decode, prompts only in the total", () => {
  const early = { arrivals: [100, 200, 300, 400, 500], completionTokens: 5 };
  const late = { arrivals: [300, 400, 500, 600, 700], completionTokens: 5 };
  // From 300 to 500 ms both got two tokens.
  expect(decodeRate([early, late])).toBeCloseTo(20);
  expect(totalRate([early, late])).toBeCloseTo(10 / 0.7);
  expect(lastFirstToken([early, late])).toBe(300);
});
