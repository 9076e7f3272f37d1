import { BENCHMARKS, benchmark, NAMES } from "./bench/benchmarks.mjs";
import { measureBrowsers } from "./bench/browsers.mjs";
import { BENCH_FLAGS, parseBench } from "./bench/options.mjs";
import { measureInPage } from "./bench/pageBenchmarks.mjs";
import { measurePeers } from "./bench/peers.mjs";
import { openResultFile } from "./bench/resultFile.mjs";
import { runMain } from "./lib/errors.mjs";
import { helpText } from "./lib/flags.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { say } from "./lib/progress.mjs";
import { beforeEnd } from "./lib/signals.mjs";

/**
 * What a measurement comes to.
 * @typedef {object} Report
 * @property {import("./bench/machine.mjs").Environment} env
 * @property {readonly import("./bench/rows.mjs").Row[]} results
 * @property {readonly string[]} lines the results for people
 */

/**
 * Benchmarks with a set-up of their own; the others share a page.
 * @type {Readonly<Partial<Record<import("./bench/benchmarks.mjs").BenchmarkName, (options: import("./bench/options.mjs").BenchOptions) => Promise<Report>>>>}
 */
const ALONE = { browsers: measureBrowsers, peers: measurePeers };

await runMain(async () => {
  const options = parseBench(process.argv.slice(2));
  if (options === "help") {
    process.stdout.write(helpText("npm run bench -- [names] [flags]", BENCH_FLAGS));
    for (const name of NAMES) {
      const only = benchmark(name).named ? "; only when it is named" : "";
      process.stdout.write(`  ${name.padEnd(34)} ${BENCHMARKS[name].help}${only}\n`);
    }
    return;
  }
  const file = options.json === undefined ? undefined : openResultFile(options.json);
  const forget = beforeEnd(() => file?.discard());
  try {
    await ensurePackages();
    const [name] = options.names;
    const measure = (name === undefined ? undefined : ALONE[name]) ?? measureInPage;
    const { lines, ...report } = await measure(options);
    process.stdout.write(`${lines.join("\n")}\n`);
    file?.write(report);
    if (file !== undefined) say(`Written to ${options.json}`);
  } catch (error) {
    file?.discard();
    throw error;
  } finally {
    forget();
  }
});
