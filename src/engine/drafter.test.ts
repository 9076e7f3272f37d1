import { describe, expect, it } from "vitest";
import { Drafter } from "./drafter.ts";

const FREE_ROWS = { msPerStep: 10, msPerRow: 0 };
const DEAR_ROWS = { msPerStep: 0, msPerRow: 10 };
const PROMPT = [1, 2, 3, 4, 5, 6, 1, 2];

describe("Drafter", () => {
  it("proposes what followed the last tokens before, as many as it may", () => {
    const drafter = new Drafter(3, PROMPT);
    expect(drafter.propose(8, 1, FREE_ROWS)).toEqual([3, 4, 5]);
    expect(drafter.propose(2, 1, FREE_ROWS)).toEqual([3, 4]);
    expect(drafter.propose(0, 1, FREE_ROWS)).toEqual([]);
  });

  it("goes on from what was said", () => {
    const drafter = new Drafter(3, PROMPT);
    drafter.record([3, 4], 3, 1);
    expect(drafter.propose(8, 1, FREE_ROWS)).toEqual([5, 6, 1]);
    drafter.record([9], 3, 0);
    expect(drafter.propose(8, 1, FREE_ROWS)).toEqual([]);
  });

  it("proposes nothing where rows cost what they bring", () => {
    expect(new Drafter(3, PROMPT).propose(8, 1, DEAR_ROWS)).toEqual([]);
  });

  it("needs two tokens that occurred before", () => {
    expect(new Drafter(3, [1, 2, 3, 9, 2]).propose(8, 1, FREE_ROWS)).toEqual([]);
    expect(new Drafter(3, []).propose(8, 1, FREE_ROWS)).toEqual([]);
  });
});
