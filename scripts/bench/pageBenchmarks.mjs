import { ensureBrowser, openPage } from "../lib/browsers.mjs";
import { ensureLibrary } from "../lib/build.mjs";
import { ensureDefaultModel } from "../lib/model.mjs";
import { inRoot } from "../lib/paths.mjs";
import { say } from "../lib/progress.mjs";
import { startServer } from "../lib/server.mjs";
import { summarize } from "../lib/statistics.mjs";
import { wasmKernels } from "../lib/wasmKernels.mjs";
import { benchmark, defaultNames } from "./benchmarks.mjs";
import { browserText, describeEnvironment, environmentLines } from "./machine.mjs";
import { pageObject } from "./pageObject.mjs";
import { perplexityLines } from "./perplexity.mjs";
import { breakdownTable, digits, resultTable, STEP_IN_WORKER, stepRatios } from "./rows.mjs";

/** @typedef {import("../../e2e/bench/page.ts").BenchPage} BenchPage */
/** @typedef {import("../../e2e/bench/benchmark.ts").BenchmarkConfig} BenchmarkConfig */
/** @typedef {import("./benchmarks.mjs").BenchmarkName} BenchmarkName */
/** @typedef {import("./rows.mjs").Row} Row */

/**
 * The benchmarks that share a page, in one run.
 * @param {import("./options.mjs").BenchOptions} options
 */
export async function measureInPage(options) {
  await ensureLibrary();
  const model = await ensureDefaultModel();
  await ensureBrowser(options.browser);
  const modelUrl = `/model/${model.name}`;
  const server = await startServer({
    isolated: options.isolated,
    folders: { "/": await buildPage(), "/dist/": inRoot("dist") },
    files: { [modelUrl]: model.path },
  });
  try {
    const { browser, page, adapter, close } = await openPage({
      name: options.browser,
      url: `${server.url}/index.html`,
      // A software adapter is measured only where WebGPU was asked for by name.
      adapter: options.backend === "webgpu" ? "auto" : "none",
    });
    try {
      const hasGpu = adapter !== null && !adapter.isFallback;
      const automatic = hasGpu ? /** @type {const} */ ("webgpu") : /** @type {const} */ ("wasm");
      const backend = options.backend === "auto" ? automatic : options.backend;
      const names = options.names.length > 0 ? options.names : defaultNames(backend);
      /** @type {BenchmarkConfig} */
      const config = {
        library: "/dist/index.js",
        backend,
        engine: options.engine,
        model: { url: modelUrl, name: model.name, byteLength: model.bytes },
        numWindows: options.numWindows,
      };
      const bench = /** @type {import("./pageObject.mjs").FromOutside<BenchPage>} */ (
        pageObject(page, "bench")
      );
      say("Loading the model");
      const opened = await bench.open(config, names);
      const env = describeEnvironment({
        browser: browserText(options.browser, browser.version()),
        adapter,
        backend: opened.backend,
        model,
      });
      const results = await measureAll(bench, backend, names, opened.units, options.runs);
      await bench.close();
      const lines = [
        ...environmentLines(env),
        "",
        ...resultTable(results),
        ...summary(results, options.numWindows),
      ];
      return { env, results, lines };
    } finally {
      await close();
    }
  } finally {
    await server.close();
  }
}

/** @param {readonly Row[]} results @param {number} numWindows */
function summary(results, numWindows) {
  const ratios = stepRatios(results);
  const hasBreakdown = results.some(({ name }) => name === "breakdown");
  return [
    ...(ratios.length > 0 ? ["", ...ratios] : []),
    ...(hasBreakdown ? ["", ...breakdownTable(results)] : []),
    ...perplexityLines(results, numWindows),
  ];
}

/** Bundles the page: unlike a user's, it reaches behind the public API. @returns {Promise<string>} */
async function buildPage() {
  const { build } = await import("vite");
  const outDir = inRoot(".cache/bench");
  const kernels = wasmKernels();
  await build({
    configFile: false,
    root: inRoot("e2e/bench"),
    base: "./",
    logLevel: "error",
    publicDir: false,
    plugins: [kernels],
    worker: { format: "es", plugins: () => [kernels] },
    build: { outDir, emptyOutDir: true, target: "es2022", modulePreload: false },
  });
  return outDir;
}

/**
 * Measures everything once, then everything again, and so on: what drifts (heat, other programs)
 * touches all results alike.
 * @param {import("./pageObject.mjs").FromOutside<BenchPage>} bench
 * @param {import("./benchmarks.mjs").BenchBackend} backend
 * @param {readonly BenchmarkName[]} names
 * @param {Readonly<Record<string, string>>} units
 * @param {number | undefined} wantedRuns
 * @returns {Promise<Row[]>}
 */
async function measureAll(bench, backend, names, units, wantedRuns) {
  const cases = names.flatMap((name) => {
    const { runs, cases = {} } = benchmark(name);
    return (cases[backend] ?? []).map((which) => ({
      name,
      which,
      runs: wantedRuns ?? runs,
      parts: /** @type {Map<string | undefined, number[]>} */ (new Map()),
    }));
  });
  // What is compared with each other is measured one right after the other.
  cases.sort((a, b) => a.which.batch - b.which.batch);
  for (const { name, which } of cases) {
    say(`warm-up: ${caseText(name, which)}`);
    await bench.warmUp(name, which);
  }
  const rounds = Math.max(...cases.map(({ runs }) => runs));
  for (let run = 0; run < rounds; run++) {
    for (const { name, which, runs, parts } of cases) {
      if (run >= runs) continue;
      const value = await bench.measure(name, which);
      const measured = typeof value === "number" ? [[undefined, value]] : Object.entries(value);
      for (const [part, number] of /** @type {[string | undefined, number][]} */ (measured)) {
        const values = parts.get(part) ?? [];
        parts.set(part, [...values, number]);
      }
      const shown = typeof value === "number" ? value : (value[STEP_IN_WORKER] ?? Number.NaN);
      say(`run ${run + 1}: ${caseText(name, which)}: ${digits(shown)} ${units[name]}`);
    }
  }
  return cases.flatMap(({ name, which, parts }) =>
    [...parts].map(([part, values]) => ({
      name,
      backend,
      ...which,
      ...(part === undefined ? {} : { part }),
      unit: units[name] ?? "",
      ...summarize(values),
    })),
  );
}

/** @param {string} name @param {import("./benchmarks.mjs").Case} which */
function caseText(name, { batch, context }) {
  return `${name}, batch ${batch}${context === undefined ? "" : `, context ${context}`}`;
}
