import { describe, expect, it } from "vitest";
import { HostBlocks } from "./hostBlocks.ts";

describe("HostBlocks", () => {
  it("says once what was released, and not what was given out again before anybody asked", () => {
    const blocks = new HostBlocks(4);
    const [first, second] = blocks.allocate(2, 1)!;
    expect(blocks.takeReleased()).toEqual([]);
    blocks.release([first!, second!], 1);
    expect(blocks.allocate(4, 1)).toBeUndefined(); // two of them were released in this step
    const [again] = blocks.allocate(1, 2)!;
    expect([first, second]).toContain(again);
    expect(blocks.takeReleased()).toEqual([first, second].filter((block) => block !== again));
    expect(blocks.takeReleased()).toEqual([]);
    blocks.release([again!], 2);
    expect(blocks.takeReleased()).toEqual([again]);
  });
});
