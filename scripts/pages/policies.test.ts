import { expect, test } from "vitest";
import { dispatch, type Policy } from "./policies.js";

/** A clock that jumps to the next time that anybody waits for. */
class MadeUpClock {
  #now = 0;
  #waiting: { readonly time: number; readonly wake: () => void }[] = [];

  now = (): number => this.#now;

  until = (time: number): Promise<void> => {
    if (time <= this.#now) return Promise.resolve();
    return new Promise((wake) => this.#waiting.push({ time, wake }));
  };

  /** Runs until `done`, which must not wait for anything else than this clock. */
  async run<T>(done: Promise<T>): Promise<T> {
    let isDone = false;
    const ended = done.finally(() => {
      isDone = true;
    });
    ended.catch(() => {});
    for (;;) {
      // Everything that follows from the last jump happens before the next one.
      await new Promise((settled) => setImmediate(settled));
      if (isDone) return ended;
      this.#waiting.sort((a, b) => a.time - b.time);
      const next = this.#waiting.shift();
      if (next === undefined) throw new Error("Nobody waits and nothing is done.");
      this.#now = next.time;
      next.wake();
    }
  }
}

/** When each request was sent, if every one takes its time however many run. */
async function sentAt(
  policy: Policy,
  arrivals: readonly number[],
  durations: readonly number[],
): Promise<readonly (number | undefined)[]> {
  const clock = new MadeUpClock();
  const sent: number[] = [];
  const run = async (index: number) => {
    sent[index] = clock.now();
    await clock.until(clock.now() + (durations[index] ?? 0));
  };
  await clock.run(dispatch(policy, arrivals, run, clock));
  return sent;
}

const ARRIVALS = [10, 12, 15, 80, 81];
const DURATIONS = [30, 10, 20, 5, 5];

test("serial: one at a time, in order of arrival", async () => {
  expect(await sentAt("serial", ARRIVALS, DURATIONS)).toEqual([10, 40, 50, 80, 85]);
});

test("static: what waits when the whole batch before has ended", async () => {
  expect(await sentAt("static", ARRIVALS, DURATIONS)).toEqual([10, 40, 40, 80, 85]);
});

test("static: eight at most", async () => {
  const sent = await sentAt(
    "static",
    Array.from({ length: 11 }, () => 0),
    [50, ...Array.from({ length: 10 }, () => 10)],
  );
  expect(sent).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 50, 50, 50]);
});

test("quire: every request when it arrives", async () => {
  expect(await sentAt("quire", ARRIVALS, DURATIONS)).toEqual(ARRIVALS);
});

test("no requests, nothing to do", async () => {
  for (const policy of ["serial", "static", "quire"] as const) {
    expect(await sentAt(policy, [], [])).toEqual([]);
  }
});

test.each(["serial", "static", "quire"] as const)(
  "%s: a request that fails ends it",
  async (policy) => {
    const clock = new MadeUpClock();
    const run = async (index: number) => {
      await clock.until(clock.now() + 5);
      if (index === 1) throw new Error("The model fell over.");
    };
    const served = clock.run(dispatch(policy, [0, 1, 2], run, clock));
    await expect(served).rejects.toThrow("The model fell over.");
  },
);
