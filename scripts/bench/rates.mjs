/** @typedef {Pick<import("../../e2e/peers/timing.js").ChatTimes, "arrivals" | "completionTokens">} Times */

/**
 * Tokens a second of all chats while all of them were decoding: from the last first token to the
 * first last one.
 * @param {readonly Times[]} chats
 */
export function decodeRate(chats) {
  const start = lastFirstToken(chats);
  const end = Math.min(...chats.map(({ arrivals }) => last(arrivals)));
  const tokens = chats.reduce(
    (sum, { arrivals }) => sum + arrivals.filter((time) => time > start && time <= end).length,
    0,
  );
  return (tokens * 1000) / (end - start);
}

/** Tokens a second of all chats from submitting them to the last token: prompts count. @param {readonly Times[]} chats */
export function totalRate(chats) {
  const tokens = chats.reduce((sum, { completionTokens }) => sum + completionTokens, 0);
  return (tokens * 1000) / Math.max(...chats.map(({ arrivals }) => last(arrivals)));
}

/** Ms from submitting to the first token of the chat that got its own last. @param {readonly Times[]} chats */
export function lastFirstToken(chats) {
  return Math.max(...chats.map(({ arrivals }) => arrivals[0] ?? Number.NaN));
}

/** @param {readonly number[]} times */
function last(times) {
  return times.at(-1) ?? Number.NaN;
}
