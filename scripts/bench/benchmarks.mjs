/** @typedef {"webgpu" | "wasm"} BenchBackend */

/**
 * One of the things that a benchmark in the page measures.
 * @typedef {object} Case
 * @property {number} batch sequences, or rows of a bare walk
 * @property {number} [context] tokens in the KV pool when the measurement starts
 */

/**
 * A benchmark.
 * @typedef {object} BenchmarkSpec
 * @property {string} help
 * @property {readonly BenchBackend[]} backends where there is such a thing
 * @property {number} runs measurements of each case
 * @property {Readonly<Partial<Record<BenchBackend, readonly Case[]>>>} [cases] of the benchmarks that share the page
 * @property {boolean} [named] runs only when it is named: it takes minutes, or installs something
 */

const BATCHES = [1, 2, 4, 8];
const atContext = (/** @type {number} */ context) => BATCHES.map((batch) => ({ batch, context }));
const batches = BATCHES.map((batch) => ({ batch }));
/** Both leave room for the measured steps in SmolLM2's 8,192 and in shorter contexts of 4,224. */
const CONTEXTS = [128, 512, 1024, 2048, 4096];

/** Every benchmark, in the order in which they run. */
export const BENCHMARKS = /** @satisfies {Record<string, BenchmarkSpec>} */ (
  /** @type {const} */ ({
    decode: {
      help: "a whole decode step through the public API",
      backends: ["webgpu", "wasm"],
      runs: 5,
      cases: { webgpu: atContext(64), wasm: atContext(128) },
    },
    prefill: {
      help: "prompts that the pool has never seen",
      backends: ["webgpu", "wasm"],
      runs: 3,
      cases: { webgpu: batches, wasm: batches },
    },
    linear: {
      help: "the bare linear kernels of a step on WebGPU",
      backends: ["webgpu"],
      runs: 5,
      cases: { webgpu: batches },
    },
    walk: {
      help: "the bare walk of the linear layers on WASM",
      backends: ["wasm"],
      runs: 5,
      cases: { wasm: batches },
    },
    breakdown: {
      help: "where a decode step on WASM goes",
      backends: ["wasm"],
      runs: 5,
      cases: {
        wasm: [
          { batch: 1, context: 128 },
          { batch: 8, context: 128 },
        ],
      },
    },
    context: {
      help: "a decode step of one chat over its context",
      backends: ["wasm"],
      runs: 5,
      cases: { wasm: CONTEXTS.map((context) => ({ batch: 1, context })) },
    },
    perplexity: {
      help: "how well a fixed text is expected, beside llama.cpp's F32 twin",
      backends: ["webgpu", "wasm"],
      runs: 1,
      cases: { webgpu: [{ batch: 1 }], wasm: [{ batch: 1 }] },
      named: true,
    },
    browsers: {
      help: "WASM in other browsers, unisolated, plain SIMD: same tokens, speeds",
      backends: ["wasm"],
      runs: 3,
      named: true,
    },
    peers: {
      help: "the same chats in wllama and in native llama.cpp",
      backends: ["wasm"],
      runs: 5,
      named: true,
    },
  })
);

/** @typedef {keyof typeof BENCHMARKS} BenchmarkName */

export const NAMES = /** @type {readonly BenchmarkName[]} */ (Object.keys(BENCHMARKS));

/** @param {BenchmarkName} name @returns {BenchmarkSpec} */
export function benchmark(name) {
  return BENCHMARKS[name];
}

/** What runs when no benchmark is named. @param {BenchBackend} backend */
export function defaultNames(backend) {
  return NAMES.filter((name) => {
    const { named, backends } = benchmark(name);
    return !named && backends.includes(backend);
  });
}
