import { describe, expect, it } from "vitest";
import { Slots } from "./slots.ts";

describe("Slots", () => {
  it("gives out each slot once, low ones first, and takes them back", () => {
    const slots = new Slots(3);
    expect([slots.take(), slots.take(), slots.take()]).toEqual([0, 1, 2]);
    expect(slots.numFree).toBe(0);
    expect(() => slots.take()).toThrow("A slot is taken but none is free.");
    slots.release(1);
    expect(slots.numFree).toBe(1);
    expect(slots.take()).toBe(1);
  });

  it("does not count promised slots as free, and promises no more than it has", () => {
    const slots = new Slots(4);
    slots.take();
    slots.reserve(2);
    expect(slots.numFree).toBe(1);
    expect(() => slots.reserve(2)).toThrow("4 of 3 free slots are reserved.");
    slots.reserve(-2);
    slots.reserve(-1);
    slots.reserve(-1);
    expect(slots.numFree).toBe(3);
    expect(() => slots.reserve(-1)).toThrow("-1 of 3 free slots are reserved.");
  });

  it("notices slots that are lost, held twice, or promised to nobody", () => {
    const slots = new Slots(3);
    const taken = [slots.take(), slots.take()];
    slots.checkIntegrity(taken, 0);
    expect(() => slots.checkIntegrity([0], 0)).toThrow("1 free and 1 taken slots");
    expect(() => slots.checkIntegrity([0, 0], 0)).toThrow("share 2 slots of 3");
    expect(() => slots.checkIntegrity(taken, 1)).toThrow(
      "0 slots are reserved; sequences ask for 1",
    );
  });
});
