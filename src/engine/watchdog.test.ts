import { describe, expect, it } from "vitest";
import { Watchdog, type Watched } from "./watchdog.ts";

class World {
  nowMs = 1_000;
  readonly watchdog = new Watchdog({ now: () => this.nowMs, stallMs: 100 });

  create(requestId: string, index = 0): Watched & { lastProgressMs: number } {
    return { requestId, index, lastProgressMs: this.nowMs };
  }
}

describe("Watchdog", () => {
  it("names who made no progress for stallMs, longest first", () => {
    const world = new World();
    const early = world.create("early", 2);
    world.nowMs += 30;
    const late = world.create("late");
    const busy = world.create("busy");
    const all = [late, busy, early];
    world.nowMs += 69;
    expect(world.watchdog.stalled(all)).toEqual([]);
    world.nowMs += 1;
    expect(world.watchdog.stalled(all)).toEqual([{ requestId: "early", index: 2, waitedMs: 100 }]);
    busy.lastProgressMs = world.nowMs;
    world.nowMs += 50;
    expect(world.watchdog.stalled(all)).toEqual([
      { requestId: "early", index: 2, waitedMs: 150 },
      { requestId: "late", index: 0, waitedMs: 120 },
    ]);
  });

  it("forgives who got on", () => {
    const world = new World();
    const sequence = world.create("a");
    world.nowMs += 500;
    expect(world.watchdog.stalled([sequence])).toHaveLength(1);
    sequence.lastProgressMs = world.nowMs;
    expect(world.watchdog.stalled([sequence])).toEqual([]);
  });

  it("forgives waits in which it was not asked for two turns: the machine slept", () => {
    const world = new World();
    const { watchdog } = world;
    const sequence = world.create("a");
    const { turnMs } = watchdog;
    expect(turnMs).toBe(25);
    for (let i = 0; i < 3; i++) {
      world.nowMs += turnMs;
      watchdog.takeTurn();
    }
    world.nowMs += 2 * turnMs;
    watchdog.takeTurn();
    expect(watchdog.stalled([sequence])).toMatchObject([{ waitedMs: 125 }]);
    world.nowMs += 2 * turnMs + 1;
    watchdog.takeTurn();
    expect(watchdog.stalled([sequence])).toEqual([]);
    for (let i = 0; i < 4; i++) {
      world.nowMs += turnMs;
      watchdog.takeTurn();
    }
    expect(watchdog.stalled([sequence])).toMatchObject([{ waitedMs: 100 }]);
  });

  it("takes a turn once every stallMs, so that a stall is reported within twice that, whoever else looks", () => {
    const world = new World();
    const sequence = world.create("a");
    const found: number[] = [];
    for (let i = 0; i < 450; i++) {
      world.nowMs += 1;
      const stalls = world.watchdog.stalled([sequence]);
      if (world.watchdog.takeTurn() && stalls.length > 0) {
        found.push(world.nowMs - 1_000);
      }
    }
    expect(found).toEqual([100, 200, 300, 400]);
  });
});
