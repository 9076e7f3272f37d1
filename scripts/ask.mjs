import { ASK_FLAGS, parseAsk, unusedFlags } from "./lib/askOptions.mjs";
import { describeAdapter, ensureBrowser, openPage } from "./lib/browsers.mjs";
import { ensureLibrary } from "./lib/build.mjs";
import { ConversationPrinter } from "./lib/conversationPrinter.mjs";
import { runMain, SetupError, UsageError } from "./lib/errors.mjs";
import { helpText } from "./lib/flags.mjs";
import { ensureDefaultModel } from "./lib/model.mjs";
import { ensureNamedModel, readModelFlag } from "./lib/namedModel.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { inRoot } from "./lib/paths.mjs";
import { createProgress, say } from "./lib/progress.mjs";
import { startServer } from "./lib/server.mjs";
import { beforeEnd, SIGNAL_CODES, takeSignals } from "./lib/signals.mjs";

/** @typedef {import("./pages/ask.js").AskOutcome} AskOutcome */
/** @typedef {import("./pages/ask.js").AskEvent} AskEvent */
/** @typedef {import("./lib/signals.mjs").EndSignal} EndSignal */
/** @typedef {{ error: { code: string, message: string } }} Failure what stops everything */

/** After Ctrl-C the page gets this long to end its requests. */
const ABORT_GRACE_MS = 3000;

const argv = process.argv.slice(2);
const wantsJson = argv.includes("--json");
let isPrinted = false;

await runMain(async () => {
  if (wantsJson) beforeEnd((signal) => printJson(describeInterruption(signal)));
  try {
    const options = parseAsk(argv);
    if (options !== "help") return await ask(options);
    process.stdout.write(helpText('npm run ask -- "prompt" ["prompt 2" ...] [flags]', ASK_FLAGS));
    return 0;
  } catch (error) {
    if (wantsJson) printJson(describeFailure(error));
    throw error;
  }
});

/** @param {unknown} error @returns {Failure} */
function describeFailure(error) {
  const coded = error instanceof SetupError || error instanceof UsageError;
  const message = error instanceof Error ? error.message : String(error);
  return { error: { code: coded ? error.code : "internal", message } };
}

/** @param {EndSignal} signal @returns {Failure} */
function describeInterruption(signal) {
  const message = `${signal} ended the command before there was a result.`;
  return { error: { code: "aborted", message } };
}

/** Prints the one object that is promised: the first that there is. @param {unknown} value */
function printJson(value) {
  if (isPrinted) return;
  isPrinted = true;
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/**
 * @param {import("./lib/askOptions.mjs").AskOptions} options
 * @returns {Promise<number>} the exit code
 */
async function ask(options) {
  const named = options.model === undefined ? undefined : readModelFlag(options.model);
  await ensurePackages();
  const model = await (named === undefined ? ensureDefaultModel() : ensureNamedModel(named));
  await ensureLibrary();
  await ensureBrowser(options.browser);
  const modelUrl = `/model/${encodeURIComponent(model.name)}`;
  const server = await startServer({
    isolated: options.isolated,
    folders: { "/": inRoot("scripts/pages"), "/dist/": inRoot("dist") },
    files: { [decodeURIComponent(modelUrl)]: model.path },
  });
  try {
    const name = options.browser;
    // A software adapter is of use to nobody who did not ask for WebGPU by name.
    const wanted = options.engine.backend === "webgpu" ? "auto" : "none";
    const url = `${server.url}/ask.html`;
    const { page, adapter, close } = await openPage({ name, url, adapter: wanted });
    say(`${options.browser}: ${describeAdapter(adapter)}`);
    const interrupt = onInterrupt(page);
    try {
      const out = options.json ? process.stderr : process.stdout;
      await page.exposeFunction(
        "report",
        createReport(options, (text) => out.write(text)),
      );
      const job = {
        library: "/dist/index.js",
        model: { url: modelUrl, name: model.name, byteLength: model.bytes },
        engine: options.engine,
        requests: options.requests,
      };
      const outcome = await Promise.race([runJob(page, job), interrupt.gaveUp]);
      const code = finish(options, model, outcome);
      const signal = interrupt.seen();
      return signal === undefined ? code : SIGNAL_CODES[signal];
    } finally {
      interrupt.remove();
      await close();
    }
  } finally {
    await server.close();
  }
}

/**
 * @param {import("playwright").Page} page
 * @param {import("./lib/askOptions.mjs").AskJob} job
 * @returns {Promise<AskOutcome | Failure>}
 */
function runJob(page, job) {
  const crashed = new Promise((_, failed) => {
    page.on("crash", () => failed(new SetupError("page-crashed", "The browser's page crashed.")));
    page.on("close", () => failed(new SetupError("page-crashed", "The browser has gone.")));
  });
  page.on("console", (message) => {
    if (message.type() === "error") say(`page: ${message.text()}`);
  });
  page.on("pageerror", (error) => say(`page: ${error.message}`));
  const running = page.evaluate(
    (given) =>
      /** @type {typeof globalThis & { runJob(job: unknown): Promise<AskOutcome> }} */ (
        globalThis
      ).runJob(given),
    job,
  );
  return Promise.race([running, crashed]);
}

/**
 * Ctrl-C ends the requests; a second one, or a page that does not answer, ends the waiting.
 * @param {import("playwright").Page} page
 */
function onInterrupt(page) {
  /** @type {EndSignal | undefined} */
  let seen;
  /** @type {(failure: Failure) => void} */
  let end = () => {};
  /** @type {Promise<Failure>} */
  const gaveUp = new Promise((done) => {
    end = done;
  });
  const remove = takeSignals((signal) => {
    const giveUp = () => end(describeInterruption(signal));
    if (seen !== undefined) return giveUp();
    seen = signal;
    setTimeout(giveUp, ABORT_GRACE_MS).unref();
    page
      .evaluate(() =>
        /** @type {typeof globalThis & { abortJob(): void }} */ (globalThis).abortJob(),
      )
      .catch(giveUp);
  });
  return { gaveUp, seen: () => seen, remove };
}

/**
 * @param {import("./lib/askOptions.mjs").AskOptions} options
 * @param {(text: string) => unknown} write
 * @returns {(events: AskEvent[]) => void}
 */
function createReport(options, write) {
  const titles = options.requests.flatMap(({ messages, n }) => {
    const content = messages.at(-1)?.content;
    const title = typeof content === "string" ? content.replace(/\s+/g, " ").slice(0, 70) : "";
    return Array.from({ length: n ?? 1 }, () => title);
  });
  const printer = new ConversationPrinter(titles, write);
  /** @type {ReturnType<typeof createProgress> | undefined} */
  let progress;
  return (events) => {
    for (const event of events) {
      if (event.type === "loading") {
        progress ??= createProgress("Loading the model", event.totalBytes);
        progress.update(event.loadedBytes);
        continue;
      }
      progress?.end();
      progress = undefined;
      if (event.type === "ready") sayBackend(options, event.backend);
      else if (event.type === "text") printer.push(event.answer, event.text);
      else printer.end(event.answer, event.error);
    }
  };
}

/**
 * Says what computes, and which flags it has no use for.
 * @param {import("./lib/askOptions.mjs").AskOptions} options
 * @param {import("../src/worker/protocol.ts").BackendInfo} info
 */
function sayBackend({ engine }, { backend, precision, threads, simd, backendReason }) {
  const cpu = simd === null ? "" : `, ${threads} thread${threads === 1 ? "" : "s"}, ${simd} SIMD`;
  say(`Back end ${backend}, ${precision}${cpu}. ${backendReason}`);
  const unused = unusedFlags(engine, backend).join(", ");
  if (unused !== "") say(`Not used on WebGPU: ${unused}. --backend wasm uses what is WASM's.`);
}

/**
 * Prints the results.
 * @param {import("./lib/askOptions.mjs").AskOptions} options
 * @param {import("./lib/model.mjs").LocalModel} model
 * @param {AskOutcome | Failure} outcome
 * @returns {number} the exit code
 */
function finish(options, model, outcome) {
  if ("error" in outcome) {
    say(`${outcome.error.code}: ${outcome.error.message}`);
    if (options.json) printJson(outcome);
    return 1;
  }
  const { stats, answers, elapsedMs } = outcome;
  const tokens = answers.reduce((sum, answer) => sum + answer.completionTokens, 0);
  const tokensPerSecond = elapsedMs > 0 ? (tokens * 1000) / elapsedMs : 0;
  const line =
    `${answers.length} answer${answers.length === 1 ? "" : "s"}, ${tokens} tokens in ` +
    `${(elapsedMs / 1000).toFixed(1)} s: ${tokensPerSecond.toFixed(1)} tokens/s, ` +
    `${stats.totals.steps} steps; KV blocks: ${stats.kv.blocksPeak} of ${stats.kv.blocksTotal} at peak`;
  (options.json ? process.stderr : process.stdout).write(`${line}\n`);
  if (options.json) {
    printJson({
      backend: stats.backend,
      precision: stats.precision,
      kv: stats.kv.dtype,
      threads: stats.threads,
      model: { file: model.name, sha256: model.sha256, architecture: stats.model.architecture },
      adapter: stats.adapter,
      results: answers,
      tokensPerSecond,
      steps: stats.totals.steps,
      preemptions: stats.totals.preemptions,
      kvBlocksPeak: stats.kv.blocksPeak,
      kvBlocksTotal: stats.kv.blocksTotal,
    });
  }
  return answers.every((answer) => answer.error === undefined) ? 0 : 1;
}
