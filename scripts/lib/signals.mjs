/** @typedef {"SIGHUP" | "SIGINT" | "SIGTERM"} EndSignal */

/** The exit code of a command that such a signal ended, as shells count. */
export const SIGNAL_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

const SIGNALS = /** @type {readonly EndSignal[]} */ (Object.keys(SIGNAL_CODES));
/** What is done before the end may take so long. */
const END_LIMIT_MS = 5000;

/** @type {Set<(signal: EndSignal) => unknown>} */
const duties = new Set();
/** @type {((signal: EndSignal) => void) | undefined} */
let takenBy;
let ending = false;

/** Whether a signal is ending this process: what fails now fails because of that. */
export function isEnding() {
  return ending;
}

/**
 * Has something done before a signal ends this process, such as closing a browser.
 * @param {(signal: EndSignal) => unknown} duty
 * @returns {() => void} takes it back
 */
export function beforeEnd(duty) {
  duties.add(duty);
  listen();
  return () => {
    duties.delete(duty);
    listen();
  };
}

/**
 * Hands all signals to `handler`, which ends the command in its own way.
 * @param {(signal: EndSignal) => void} handler
 * @returns {() => void} takes it back
 */
export function takeSignals(handler) {
  takenBy = handler;
  listen();
  return () => {
    takenBy = undefined;
    listen();
  };
}

/** Where nothing is to be done a signal keeps its usual effect: tests' processes are ended by them. */
function listen() {
  const isNeeded = ending || takenBy !== undefined || duties.size > 0;
  for (const signal of SIGNALS) {
    process.off(signal, onSignal);
    if (isNeeded) process.on(signal, onSignal);
  }
}

/** @param {EndSignal} signal */
function onSignal(signal) {
  if (takenBy !== undefined) takenBy(signal);
  else if (!ending) void end(signal);
}

/** @param {EndSignal} signal */
async function end(signal) {
  ending = true;
  const done = Promise.allSettled([...duties].map(async (duty) => duty(signal)));
  await Promise.race([done, new Promise((late) => setTimeout(late, END_LIMIT_MS))]);
  process.exit(SIGNAL_CODES[signal]);
}
