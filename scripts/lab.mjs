import { mkdirSync, writeFileSync } from "node:fs";
import { runBrowserExperiment } from "./lab/browser.mjs";
import { bundleLab } from "./lab/bundle.mjs";
import { LAB_FLAGS, parseLab } from "./lab/options.mjs";
import { runExperiments } from "./lab/runExperiments.mjs";
import { ensureBrowser } from "./lib/browsers.mjs";
import { runMain } from "./lib/errors.mjs";
import { helpText } from "./lib/flags.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { inRoot } from "./lib/paths.mjs";
import { say } from "./lib/progress.mjs";

/** Where the plots are written. */
const PLOTS = ".cache/lab/plots";

/** The experiment that needs a browser and the cores for itself. */
const IN_BROWSER = { id: "E20", title: "The real engine in a browser under Poisson arrivals" };

await runMain(async () => {
  await ensurePackages();
  const { file, module: lab } = await bundleLab();
  const experiments = [...lab.listExperiments(), IN_BROWSER];
  const known = experiments.map(({ id }) => id);
  const options = parseLab(process.argv.slice(2), known);
  if (options === "help") {
    process.stdout.write(helpText("npm run lab -- [E1 E2 ...] [flags]", LAB_FLAGS));
    for (const { id, title } of experiments) process.stdout.write(`  ${id.padEnd(4)} ${title}\n`);
    return;
  }
  const { ids, seed, json } = options;
  // Now rather than after minutes of simulations.
  if (ids.includes(IN_BROWSER.id)) await ensureBrowser("chromium");
  const start = performance.now();
  const print = (/** @type {import("../src/lab/lab.ts").LabReport} */ { text }) =>
    (json ? process.stderr : process.stdout).write(`${text}\n`);
  const simulated = ids.filter((id) => id !== IN_BROWSER.id);
  const reports = await runExperiments(file, simulated, seed, print);
  if (ids.includes(IN_BROWSER.id)) {
    const { id, title, ...result } = await runBrowserExperiment({ seed, log: say });
    const report = lab.reportOf(id, title, seed, result);
    print(report);
    reports.push(report);
  }
  mkdirSync(inRoot(PLOTS), { recursive: true });
  const plots = reports.flatMap((report) => report.plots);
  for (const plot of plots) writeFileSync(inRoot(`${PLOTS}/${plot.file}`), plot.svg);
  const sum = (/** @type {"met" | "missed"} */ name) =>
    reports.reduce((total, { targets }) => total + targets[name], 0);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  say(
    `${reports.length} experiments in ${seconds} s; targets: ${sum("met")} met, ${sum("missed")} missed.`,
  );
  if (plots.length > 0) say(`${plots.length} plots in ${PLOTS}`);
  if (json) {
    const parts = reports.map(({ id, title, seed, rows }) => ({ id, title, seed, rows }));
    process.stdout.write(`${JSON.stringify({ experiments: parts })}\n`);
  }
});
