// Who is sent to the engine when. Runs in a page, and on a made-up clock in tests.

/**
 * Most requests that a policy has in the engine at once; it takes the next ones only when all of them
 * have ended. `quire` sends every request when it arrives and leaves the batching to the engine.
 */
export const BATCH_LIMITS = /** @type {const} */ ({ serial: 1, static: 8, quire: null });

/** @typedef {keyof typeof BATCH_LIMITS} Policy */

/**
 * Time in ms since the first request could have come.
 * @typedef {object} Clock
 * @property {() => number} now
 * @property {(time: number) => Promise<void>} until at once where the time is past
 */

/**
 * Sends requests in their order of arrival. Resolves when all have ended; rejects as soon as one does.
 * @param {Policy} policy
 * @param {readonly number[]} arrivals ascending, in ms
 * @param {(index: number) => Promise<void>} run sends a request and resolves when it has ended
 * @param {Clock} clock
 * @returns {Promise<void>}
 */
export async function dispatch(policy, arrivals, run, clock) {
  const limit = BATCH_LIMITS[policy];
  if (limit === null) {
    await Promise.all(
      arrivals.map(async (arrival, index) => {
        await clock.until(arrival);
        await run(index);
      }),
    );
    return;
  }
  let next = 0;
  for (let first = arrivals[next]; first !== undefined; first = arrivals[next]) {
    await clock.until(first);
    const now = clock.now();
    const batch = [];
    for (let at = arrivals[next]; at !== undefined && at <= now; at = arrivals[next]) {
      batch.push(next++);
      if (batch.length === limit) break;
    }
    await Promise.all(batch.map(run));
  }
}
