// Runs in the headless browser of `npm run ask`: loads the built library, runs all conversations at
// once and reports to the command what comes.

import { openRangeSource } from "./rangeSource.js";

/**
 * One answer: a sample of a conversation.
 * @typedef {object} Answer
 * @property {string} text
 * @property {number[]} tokens
 * @property {number} promptTokens
 * @property {number} cachedTokens
 * @property {number} completionTokens
 * @property {"stop" | "length" | "abort" | "error"} finishReason
 * @property {number | null} timeToFirstTokenMs
 * @property {number} durationMs
 * @property {{ code: string, message: string }} [error]
 */

/**
 * @typedef {{ type: "loading", loadedBytes: number, totalBytes: number }
 *   | { type: "ready", backend: import("../../src/worker/protocol.ts").BackendInfo }
 *   | { type: "text", answer: number, text: string }
 *   | { type: "end", answer: number, error?: string }} AskEvent
 */

/**
 * @typedef {object} AskOutcome
 * @property {import("../../src/worker/protocol.ts").EngineStats} stats
 * @property {Answer[]} answers
 * @property {number} elapsedMs first submit to last finish
 */

/** @typedef {import("../lib/askOptions.mjs").AskJob} AskJob */

const page =
  /** @type {typeof globalThis & { report(events: AskEvent[]): Promise<void>, runJob: typeof runJob, abortJob: () => void }} */ (
    globalThis
  );
const controller = new AbortController();
page.runJob = runJob;
page.abortJob = () => controller.abort();

/**
 * @param {AskJob} job
 * @returns {Promise<AskOutcome | { error: { code: string, message: string } }>}
 */
async function runJob(job) {
  const reporter = createReporter();
  /** @type {import("../../src/client/types.ts").QuireEngine | undefined} */
  let engine;
  try {
    /** @type {typeof import("../../src/index.ts")} */
    const { createEngine } = await import(job.library);
    engine = await createEngine({
      ...job.engine,
      model: openRangeSource(job.model),
      signal: controller.signal,
      onProgress: ({ phase, loadedBytes, totalBytes }) => {
        if (phase === "weights") reporter.report({ type: "loading", loadedBytes, totalBytes });
      },
    });
    const { backend, backendReason, precision, threads, simd, adapter } = engine;
    const info = { backend, backendReason, precision, threads, simd, adapter };
    reporter.report({ type: "ready", backend: info });
    const start = performance.now();
    let first = 0;
    const running = job.requests.map((request) => {
      const answers = converse(
        /** @type {typeof engine & {}} */ (engine),
        request,
        first,
        reporter,
      );
      first += request.n ?? 1;
      return answers;
    });
    const answers = (await Promise.all(running)).flat();
    const elapsedMs = performance.now() - start;
    const stats = await engine.stats();
    return { stats, answers, elapsedMs };
  } catch (error) {
    return { error: describeError(error) };
  } finally {
    await engine?.dispose();
    await reporter.flushed();
  }
}

/**
 * @param {import("../../src/client/types.ts").QuireEngine} engine
 * @param {AskJob["requests"][number]} request
 * @param {number} first number of its first answer
 * @param {ReturnType<typeof createReporter>} reporter
 * @returns {Promise<Answer[]>}
 */
async function converse(engine, request, first, reporter) {
  const start = performance.now();
  const samples = Array.from({ length: request.n ?? 1 }, () => ({
    text: "",
    tokens: /** @type {number[]} */ ([]),
    finishReason: /** @type {Answer["finishReason"] | undefined} */ (undefined),
    firstAt: /** @type {number | null} */ (null),
    lastAt: start,
  }));
  let usage = { promptTokens: 0, cachedTokens: 0 };
  /** @type {Answer["error"]} */
  let failure;
  try {
    const stream = await engine.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
      return_token_ids: true,
      signal: controller.signal,
    });
    for await (const chunk of stream) {
      const now = performance.now();
      if (chunk.usage) {
        usage = {
          promptTokens: chunk.usage.prompt_tokens,
          cachedTokens: chunk.usage.prompt_tokens_details.cached_tokens,
        };
      }
      for (const choice of chunk.choices) {
        const sample = samples[choice.index];
        if (sample === undefined) throw new Error(`A chunk came for choice ${choice.index}.`);
        if (choice.token_ids !== undefined && choice.token_ids.length > 0) {
          sample.tokens.push(...choice.token_ids);
          sample.firstAt ??= now;
          sample.lastAt = now;
        }
        const answer = first + choice.index;
        if (choice.delta.content) {
          sample.text += choice.delta.content;
          reporter.report({ type: "text", answer, text: choice.delta.content });
        }
        if (choice.finish_reason !== null) {
          sample.finishReason = choice.finish_reason;
          reporter.report({ type: "end", answer });
        }
      }
    }
  } catch (error) {
    failure = describeError(error);
  }
  return samples.map(({ text, tokens, finishReason, firstAt, lastAt }, index) => {
    const unfinished = finishReason === undefined;
    const error = failure ?? { code: "internal", message: "The stream ended before the answer." };
    if (unfinished) reporter.report({ type: "end", answer: first + index, error: error.message });
    return {
      text,
      tokens,
      ...usage,
      completionTokens: tokens.length,
      finishReason: finishReason ?? (error.code === "aborted" ? "abort" : "error"),
      timeToFirstTokenMs: firstAt === null ? null : firstAt - start,
      durationMs: (firstAt === null ? performance.now() : lastAt) - start,
      ...(unfinished ? { error } : {}),
    };
  });
}

/** @param {unknown} error @returns {{ code: string, message: string }} */
function describeError(error) {
  if (!(error instanceof Error)) return { code: "internal", message: String(error) };
  const code = "code" in error && typeof error.code === "string" ? error.code : "internal";
  return { code, message: error.message };
}

/** Sends events to the command in order, as many at a time as have come since the last call. */
function createReporter() {
  /** @type {AskEvent[]} */
  let waiting = [];
  /** @type {Promise<void> | undefined} */
  let sending;
  const send = async () => {
    while (waiting.length > 0) {
      const events = waiting;
      waiting = [];
      await page.report(events);
    }
    sending = undefined;
  };
  return {
    /** @param {AskEvent} event */
    report(event) {
      waiting.push(event);
      sending ??= send();
    },
    async flushed() {
      await sending;
    },
  };
}
