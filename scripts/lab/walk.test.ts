import { expect, test } from "vitest";
import { requestGain, rowGain, serialWalkMs } from "./walk.mjs";

const WALK = { one: 8, eight: 16 };

test("eight rows at once over one at a time", () => {
  expect(rowGain(WALK)).toBe(4);
});

test("rows of prompts are a batch either way, so that only outputs gain", () => {
  const requests = [
    { promptTokens: 10, outputTokens: 20 },
    { promptTokens: 0, outputTokens: 10 },
  ];
  expect(serialWalkMs(WALK, requests)).toBe(10 * 2 + 30 * 8);
  expect(requestGain(WALK, requests)).toBe(260 / (40 * 2));
  expect(requestGain(WALK, [{ promptTokens: 50, outputTokens: 0 }])).toBe(1);
  expect(requestGain(WALK, [{ promptTokens: 0, outputTokens: 5 }])).toBe(rowGain(WALK));
});
