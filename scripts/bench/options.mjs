import { checkThreads } from "../lib/askOptions.mjs";
import { UsageError } from "../lib/errors.mjs";
import { parseFlags } from "../lib/flags.mjs";
import { benchmark, NAMES } from "./benchmarks.mjs";

/** @typedef {import("./benchmarks.mjs").BenchmarkName} BenchmarkName */

export const BENCH_FLAGS = /** @satisfies {Record<string, import("../lib/flags.mjs").Flag>} */ (
  /** @type {const} */ ({
    backend: { type: "choice", choices: ["auto", "webgpu", "wasm"], help: "(auto)" },
    precision: { type: "choice", choices: ["exact", "fast"], help: "(fast on wasm)" },
    threads: { type: "integer", min: 1, max: 64, help: "of the WASM back end (the processor's)" },
    simd: { type: "choice", choices: ["auto", "plain"], help: "of the WASM back end (auto)" },
    isolated: { type: "choice", choices: ["on", "off"], help: "COOP and COEP (on)" },
    browser: { type: "choice", choices: ["chromium", "firefox"], help: "(chromium)" },
    runs: { type: "integer", min: 1, max: 100, help: "measurements of each case" },
    windows: { type: "integer", min: 1, max: 9, help: "of perplexity's text, 512 tokens each (9)" },
    json: { type: "string", value: "FILE", help: "write the results there" },
  })
);

/**
 * What to measure, checked.
 * @typedef {object} BenchOptions
 * @property {readonly BenchmarkName[]} names empty: what `defaultNames` says
 * @property {"auto" | "webgpu" | "wasm"} backend
 * @property {EngineChoice} engine
 * @property {boolean} isolated
 * @property {import("../lib/browsers.mjs").BrowserName} browser
 * @property {number | undefined} runs instead of the benchmarks' own
 * @property {number} numWindows of perplexity's text
 * @property {string | undefined} json
 */

/**
 * What the back end is told, as `createEngine` takes it.
 * @typedef {object} EngineChoice
 * @property {"exact" | "fast"} [precision]
 * @property {number} [threads]
 * @property {"auto" | "plain"} [simd]
 */

/** Flags that say how the page or the back end is set up. */
const SET_UP = /** @type {const} */ (["precision", "threads", "simd", "isolated", "browser"]);
/** Benchmarks that set it up themselves, and the flags that they leave to the user. */
const OWN_SET_UP = new Map(
  /** @type {const} */ ([
    ["browsers", ["precision"]],
    ["peers", ["precision", "threads"]],
  ]),
);

/**
 * Reads the command line of `bench`. Throws a UsageError for whatever cannot be measured.
 * @param {readonly string[]} argv
 * @returns {BenchOptions | "help"}
 */
export function parseBench(argv) {
  const { values, positionals, help } = parseFlags(argv, BENCH_FLAGS, { positionals: "names" });
  if (help) return "help";
  for (const name of positionals) {
    if (!NAMES.some((known) => known === name)) {
      throw new UsageError(`There is no benchmark ${name}. Valid: ${NAMES.join(", ")}.`);
    }
  }
  const names = NAMES.filter((name) => positionals.includes(name));
  const wasmFlag =
    values.threads !== undefined || values.simd !== undefined || values.precision === "fast";
  const asked = /** @type {BenchOptions["backend"]} */ (values.backend ?? "auto");
  const backend = resolveBackend(names, asked === "auto" && wasmFlag ? "wasm" : asked);
  if (backend === "webgpu" && wasmFlag) {
    throw new UsageError(
      "--threads, --simd and --precision fast belong to the WASM back end: --backend wasm.",
    );
  }
  checkThreads(values);
  if (values.windows !== undefined && !names.includes("perplexity")) {
    throw new UsageError("--windows belongs to the benchmark perplexity, which is not named.");
  }
  for (const [name, allowed] of OWN_SET_UP) {
    if (!names.some((asked) => asked === name)) continue;
    if (names.length > 1) throw new UsageError(`The benchmark ${name} runs by itself.`);
    for (const flag of SET_UP) {
      if (values[flag] === undefined || allowed.some((one) => one === flag)) continue;
      throw new UsageError(`The benchmark ${name} chooses --${flag} itself.`);
    }
  }
  return {
    names,
    backend,
    engine: {
      ...(values.precision === undefined
        ? {}
        : { precision: /** @type {"exact" | "fast"} */ (values.precision) }),
      ...(values.threads === undefined ? {} : { threads: values.threads }),
      ...(values.simd === undefined ? {} : { simd: /** @type {"auto" | "plain"} */ (values.simd) }),
    },
    isolated: values.isolated !== "off",
    browser: values.browser === "firefox" ? "firefox" : "chromium",
    runs: values.runs,
    numWindows: values.windows ?? BENCH_FLAGS.windows.max,
    json: values.json,
  };
}

/**
 * The back end that has all of the named benchmarks; `auto` where both have.
 * @param {readonly BenchmarkName[]} names
 * @param {"auto" | "webgpu" | "wasm"} asked
 */
function resolveBackend(names, asked) {
  const common = /** @type {const} */ (["webgpu", "wasm"]).filter((backend) =>
    names.every((name) => benchmark(name).backends.includes(backend)),
  );
  if (asked === "auto") {
    const [only] = common;
    if (only === undefined) {
      throw new UsageError(`${names.join(", ")} are not all of one back end: name fewer.`);
    }
    return common.length === 1 ? only : "auto";
  }
  for (const name of names) {
    const { backends } = benchmark(name);
    if (backends.includes(asked)) continue;
    throw new UsageError(
      `There is no ${name} on ${asked}. Valid: --backend ${backends.join(", ")}.`,
    );
  }
  return asked;
}
