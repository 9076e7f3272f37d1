import { pathToFileURL } from "node:url";
import { parentPort, workerData } from "node:worker_threads";

// A thread that runs one experiment a message. What it throws ends the thread and reaches `runExperiments`.
const { runExperiment } = await import(pathToFileURL(workerData).href);

parentPort?.on("message", async ({ id, seed }) => {
  parentPort?.postMessage(await runExperiment(id, seed));
});
