import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BuddyAllocator, nextPowerOfTwo } from "./buddyAllocator.ts";

describe("BuddyAllocator", () => {
  it("hands out seven chunks of 2048 from 15,700 slots", () => {
    const buddies = new BuddyAllocator(15_700);
    const chunks = [];
    for (let chunk = buddies.allocate(2048); chunk !== undefined; chunk = buddies.allocate(2048)) {
      chunks.push(chunk);
    }
    expect(chunks).toHaveLength(7);
    expect(buddies.numFree).toBe(15_700 - 7 * 2048);
  });

  it("refuses to free what is not allocated", () => {
    const buddies = new BuddyAllocator(64);
    expect(() => buddies.free(8)).toThrow(/No chunk is allocated at 8/);
  });

  it("keeps chunks apart, aligned and inside, refuses only where no aligned chunk is free, and joins all again", () => {
    const operation = fc.record({ free: fc.boolean(), value: fc.nat(70) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.array(operation), (size, operations) => {
        const buddies = new BuddyAllocator(size);
        const held = new Map<number, number>();
        const taken = new Uint8Array(size);
        for (const { free, value } of operations) {
          if (free && held.size > 0) {
            const offset = [...held.keys()][value % held.size]!;
            taken.fill(0, offset, offset + held.get(offset)!);
            held.delete(offset);
            buddies.free(offset);
            continue;
          }
          const length = nextPowerOfTwo(value);
          const offset = buddies.allocate(value);
          if (offset === undefined) {
            expect(findFree(taken, length)).toBe(-1);
            continue;
          }
          expect(offset % length).toBe(0);
          expect(offset + length).toBeLessThanOrEqual(size);
          expect(taken.subarray(offset, offset + length).includes(1)).toBe(false);
          taken.fill(1, offset, offset + length);
          held.set(offset, length);
        }
        const used = [...held.values()].reduce((sum, length) => sum + length, 0);
        expect(buddies.numFree).toBe(size - used);
        for (const offset of held.keys()) buddies.free(offset);
        // All is joined again: the largest power of two is there.
        const largest = 2 ** Math.floor(Math.log2(size));
        expect(buddies.allocate(largest)).toBe(0);
      }),
    );
  });
});

/** Any free aligned range of this length, by looking everywhere. */
function findFree(taken: Uint8Array, length: number): number {
  for (let offset = 0; offset + length <= taken.length; offset += length) {
    if (!taken.subarray(offset, offset + length).includes(1)) return offset;
  }
  return -1;
}

describe("nextPowerOfTwo", () => {
  it("rounds up", () => {
    expect([1, 2, 3, 25, 32, 33].map(nextPowerOfTwo)).toEqual([1, 2, 4, 32, 32, 64]);
  });
});
