// Runs in a page and in Node: what is timed is the same for every runtime.

/** Length of the first answer, which ends the loading: engines compile what they run often. */
export const WARM_UP_TOKENS = 32;

/**
 * How one chat went. Times are in ms since all chats were submitted.
 * @typedef {object} ChatTimes
 * @property {number[]} arrivals when each token (or piece of text) came
 * @property {number} promptTokens 0 where the chat did not end
 * @property {number} completionTokens 0 where the chat did not end
 * @property {number[]} [tokens] the generated ids, where the runtime tells
 * @property {boolean} finished
 */

/** @typedef {Pick<ChatTimes, "promptTokens" | "completionTokens" | "tokens">} ChatUsage */

/**
 * Generates for one prompt: raw text with control tokens, greedily, `maxTokens` tokens whatever they are.
 * @typedef {(prompt: string, maxTokens: number, onToken: () => void) => Promise<ChatUsage>} Generate
 */

/**
 * Submits all prompts at once. Chats that wait for `stallMs` while no other gets a token either are
 * given up: they come back unfinished.
 * @param {Generate} generate
 * @param {{ prompts: readonly string[], maxTokens: number, stallMs: number }} chats
 * @returns {Promise<ChatTimes[]>}
 */
export async function timeChats(generate, { prompts, maxTokens, stallMs }) {
  const start = performance.now();
  let lastSign = start;
  const results = prompts.map(() => ({
    arrivals: /** @type {number[]} */ ([]),
    promptTokens: 0,
    completionTokens: 0,
    finished: false,
  }));
  const running = results.map(async (result, i) => {
    const usage = await generate(prompts[i] ?? "", maxTokens, () => {
      lastSign = performance.now();
      result.arrivals.push(lastSign - start);
    });
    Object.assign(result, usage, { finished: true });
  });
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let watch;
  const stalled = new Promise((done) => {
    watch = setInterval(() => {
      if (performance.now() - lastSign > stallMs) done(undefined);
    }, 250);
  });
  try {
    await Promise.race([Promise.all(running), stalled]);
  } finally {
    clearInterval(watch);
  }
  return results;
}
