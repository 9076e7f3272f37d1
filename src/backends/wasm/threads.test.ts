import { afterEach, describe, expect, it, vi } from "vitest";
import { command, control, FIRST_FREE_ADDRESS } from "./abi.ts";
import { compileKernels } from "./kernelModule.ts";
import { runShared, Threads } from "./threads.ts";

const HOUR_MS = 3_600_000;
const SCRATCH = 4096;

/** A clock that says `timesMs` one after the other, then ever `stepMs` more. */
function setClock(timesMs: readonly number[], stepMs: number): void {
  const left = [...timesMs];
  let nowMs = 0;
  vi.spyOn(performance, "now").mockImplementation(() => {
    nowMs = left.shift() ?? nowMs + stepMs;
    return nowMs;
  });
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe("a thread that waits for others' chunks", () => {
  /** Words of a program of one command whose chunks others hold. */
  function heldProgram(): Int32Array {
    const words = new Int32Array(new SharedArrayBuffer(2 * FIRST_FREE_ADDRESS));
    words[FIRST_FREE_ADDRESS / 4 + command.CHUNKS] = 2;
    return words;
  }

  it("outlasts a sleep of the computer, and goes on when they are done", () => {
    const words = heldProgram();
    const looks = [0, 0, 0, -1];
    setClock([0, HOUR_MS, 2 * HOUR_MS], 1);
    runShared(() => looks.shift()!, words, FIRST_FREE_ADDRESS, 1, SCRATCH);
    expect(looks).toEqual([]);
    expect(words[FIRST_FREE_ADDRESS / 4 + command.WAITERS]).toBe(0);
  });

  it("gives them up when they make no progress for ten seconds that it is awake", () => {
    let numLooks = 0;
    setClock([], 50);
    const run = () => {
      numLooks += 1;
      return 0;
    };
    expect(() => runShared(run, heldProgram(), FIRST_FREE_ADDRESS, 1, SCRATCH)).toThrow(
      expect.objectContaining({ code: "worker-failed" }),
    );
    expect(numLooks).toBeGreaterThan(10_000 / 50);
  });
});

describe("a step's end", () => {
  /** Threads of a plan: the caller's own, and one that never does anything by itself. */
  async function startOne() {
    const { modules } = await compileKernels("plain", true);
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    const { port1, port2 } = new MessageChannel();
    port2.onmessage = () => port2.postMessage({ type: "ready" });
    const scratches = [SCRATCH, SCRATCH];
    const threads = await Threads.start([port1], { modules, memory, scratches });
    port2.close();
    return { threads, words: new Int32Array(memory.buffer) };
  }

  it("waits for a thread that is still inside the program, a sleep of the computer long", async () => {
    const { threads, words } = await startOne();
    words[control.ACTIVE / 4] = 1;
    const timesMs = [0, HOUR_MS, HOUR_MS];
    vi.spyOn(performance, "now").mockImplementation(() => {
      if (timesMs.length === 1) Atomics.store(words, control.ACTIVE / 4, 0);
      return timesMs.shift()!;
    });
    threads.run(FIRST_FREE_ADDRESS, 0);
    expect(timesMs).toEqual([]);
    threads.dispose();
  });

  it("gives up a thread that never leaves it", async () => {
    const { threads, words } = await startOne();
    words[control.ACTIVE / 4] = 1;
    setClock([], 50);
    expect(() => threads.run(FIRST_FREE_ADDRESS, 0)).toThrow(
      expect.objectContaining({ code: "worker-failed" }),
    );
    threads.dispose();
  });
});
