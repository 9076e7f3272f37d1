import { writeFileSync } from "node:fs";
import { cpus, platform, release, totalmem } from "node:os";
import { describeAdapter, ensureBrowser, openPage } from "./lib/browsers.mjs";
import { ensureLibrary } from "./lib/build.mjs";
import { runMain, UsageError } from "./lib/errors.mjs";
import { helpText, parseFlags } from "./lib/flags.mjs";
import { ensureDefaultModel } from "./lib/model.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { inRoot } from "./lib/paths.mjs";
import { say } from "./lib/progress.mjs";
import { startServer } from "./lib/server.mjs";
import { summarize } from "./lib/statistics.mjs";

/** @typedef {import("../e2e/bench/page.ts").BenchPage} BenchPage */
/** @typedef {import("../e2e/bench/benchmark.ts").BenchmarkConfig} BenchmarkConfig */

/**
 * @typedef {{ name: string, backend: string, batch: number, unit: string, median: number, min: number, max: number, runs: number }} Result
 */

/** Names of benchmarks and how often each is measured at each batch size. */
const RUNS = { decode: 5, prefill: 3, linear: 5 };
const NAMES = /** @type {readonly (keyof typeof RUNS)[]} */ (Object.keys(RUNS));
const BATCHES = [1, 2, 4, 8];

const FLAGS = /** @satisfies {Record<string, import("./lib/flags.mjs").Flag>} */ (
  /** @type {const} */ ({
    backend: { type: "choice", choices: ["auto", "webgpu", "wasm"], help: "(auto)" },
    json: { type: "string", value: "FILE", help: "write the results there" },
  })
);

await runMain(async () => {
  const { values, positionals, help } = parseFlags(process.argv.slice(2), FLAGS, {
    positionals: "names",
  });
  if (help) {
    process.stdout.write(helpText(`npm run bench -- [${NAMES.join("|")} ...] [flags]`, FLAGS));
    return;
  }
  if (values.backend === "wasm") {
    throw new UsageError(
      "--backend wasm: the WASM back end is not built yet. Valid: auto, webgpu.",
    );
  }
  for (const name of positionals) {
    if (!NAMES.some((known) => known === name)) {
      throw new UsageError(`There is no benchmark ${name}. Valid: ${NAMES.join(", ")}.`);
    }
  }
  const names = NAMES.filter((name) => positionals.length === 0 || positionals.includes(name));
  const report = await bench(names);
  printTable(report.results);
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
    say(`Written to ${values.json}`);
  }
});

/** @param {readonly (keyof typeof RUNS)[]} names */
async function bench(names) {
  await ensurePackages();
  await ensureLibrary();
  const model = await ensureDefaultModel();
  await ensureBrowser("chromium");
  const folder = await buildPage();
  const modelUrl = `/model/${model.name}`;
  const server = await startServer({
    folders: { "/": folder, "/dist/": inRoot("dist") },
    files: { [modelUrl]: model.path },
  });
  try {
    const opened = await openPage({ name: "chromium", url: `${server.url}/index.html` });
    const { browser, page, adapter, close } = opened;
    try {
      const backend = /** @type {const} */ ("webgpu");
      process.stdout.write(`Measured on: ${describeAdapter(adapter)}, back end ${backend}\n`);
      const config = {
        library: "/dist/index.js",
        backend,
        model: { url: modelUrl, name: model.name, byteLength: model.bytes },
        batches: BATCHES,
      };
      const results = await measureAll(page, config, names);
      const env = {
        date: new Date().toISOString(),
        browser: `Chromium ${browser.version()}`,
        adapter: adapter === null ? null : { ...adapter, name: describeAdapter(adapter) },
        cpu: cpus()[0]?.model ?? "unknown",
        cores: cpus().length,
        memoryBytes: totalmem(),
        os: `${platform()} ${release()}`,
        node: process.versions.node,
        model: { file: model.name, sha256: model.sha256 },
      };
      return { env, results };
    } finally {
      await close();
    }
  } finally {
    await server.close();
  }
}

/** Bundles the page: unlike a user's, it reaches behind the public API. @returns {Promise<string>} */
async function buildPage() {
  const { build } = await import("vite");
  const outDir = inRoot(".cache/bench");
  await build({
    configFile: false,
    root: inRoot("e2e/bench"),
    base: "./",
    logLevel: "warn",
    publicDir: false,
    build: { outDir, emptyOutDir: true, target: "es2022", modulePreload: false },
  });
  return outDir;
}

/**
 * Measures everything once, then everything again, and so on: what drifts (heat, other programs)
 * touches all results alike.
 * @param {import("playwright").Page} page
 * @param {BenchmarkConfig} config
 * @param {readonly (keyof typeof RUNS)[]} names
 * @returns {Promise<Result[]>}
 */
async function measureAll(page, config, names) {
  say("Loading the model");
  const units = await page.evaluate(
    ([given, list]) =>
      /** @type {typeof globalThis & { bench: BenchPage }} */ (globalThis).bench.open(given, list),
    /** @type {const} */ ([config, names]),
  );
  const rows = names.flatMap((name) =>
    BATCHES.map((batch) => ({ name, batch, values: /** @type {number[]} */ ([]) })),
  );
  for (const { name, batch } of rows) {
    say(`warm-up: ${name}, batch ${batch}`);
    await page.evaluate(
      ([given, size]) =>
        /** @type {typeof globalThis & { bench: BenchPage }} */ (globalThis).bench.warmUp(
          given,
          size,
        ),
      /** @type {const} */ ([name, batch]),
    );
  }
  for (let run = 0; run < Math.max(...Object.values(RUNS)); run++) {
    for (const { name, batch, values } of rows) {
      if (run >= RUNS[name]) continue;
      const value = await page.evaluate(
        ([given, size]) =>
          /** @type {typeof globalThis & { bench: BenchPage }} */ (globalThis).bench.measure(
            given,
            size,
          ),
        /** @type {const} */ ([name, batch]),
      );
      values.push(value);
      say(`run ${run + 1}: ${name}, batch ${batch}: ${value.toFixed(1)} ${units[name]}`);
    }
  }
  await page.evaluate(() =>
    /** @type {typeof globalThis & { bench: BenchPage }} */ (globalThis).bench.close(),
  );
  return rows.map(({ name, batch, values }) => ({
    name,
    backend: config.backend,
    batch,
    unit: units[name] ?? "",
    ...summarize(values),
  }));
}

/** @param {readonly Result[]} results */
function printTable(results) {
  const lines = [["name", "batch", "median", "min", "max", "unit", "runs", ""]];
  for (const { name, batch, unit, median, min, max, runs } of results) {
    const numbers = [median, min, max].map((value) => value.toFixed(1));
    const rate = unit === "ms/step" ? `${((batch * 1000) / median).toFixed(1)} tokens/s` : "";
    lines.push([name, String(batch), ...numbers, unit, String(runs), rate]);
  }
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  for (const line of lines) {
    const cells = line.map((cell, column) => cell.padEnd(widths[column] ?? 0));
    process.stdout.write(`${cells.join("  ").trimEnd()}\n`);
  }
  for (const batch of BATCHES) {
    const find = (/** @type {string} */ name) =>
      results.find((result) => result.name === name && result.batch === batch)?.median;
    const [decode, linear] = [find("decode"), find("linear")];
    if (decode === undefined || linear === undefined) continue;
    const ratio = (decode / linear).toFixed(2);
    process.stdout.write(`batch ${batch}: a decode step takes ${ratio} x its linear kernels\n`);
  }
}
