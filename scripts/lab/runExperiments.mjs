import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/** @typedef {import("../../src/lab/lab.ts").LabReport} LabReport */

/** Experiments that take longest go first, so that no thread is left alone with one of them at the end. */
const LONGEST = ["E2", "E16", "E6", "E4", "E3", "E5", "E15"];

/**
 * Runs experiments on a few threads, one each at a time. Resolves to their reports in the order of `ids`.
 * @param {string} bundle file of the lab's code
 * @param {readonly string[]} ids
 * @param {number} seed
 * @param {(report: LabReport) => void} onReport called in the order of `ids`, each as soon as those before it are there
 * @returns {Promise<LabReport[]>}
 */
export async function runExperiments(bundle, ids, seed, onReport) {
  const queue = [
    ...LONGEST.filter((id) => ids.includes(id)),
    ...ids.filter((id) => !LONGEST.includes(id)),
  ];
  /** @type {Map<string, LabReport>} */
  const reports = new Map();
  let numReported = 0;
  const keep = (/** @type {LabReport} */ report) => {
    reports.set(report.id, report);
    for (;;) {
      const next = reports.get(ids[numReported] ?? "");
      if (next === undefined) return;
      numReported += 1;
      onReport(next);
    }
  };
  const numThreads = Math.min(availableParallelism(), queue.length);
  await Promise.all(
    Array.from({ length: numThreads }, async () => {
      const worker = new Worker(new URL("./worker.mjs", import.meta.url), { workerData: bundle });
      try {
        for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
          keep(await ask(worker, { id, seed }));
        }
      } finally {
        await worker.terminate();
      }
    }),
  );
  return ids.map((id) => /** @type {LabReport} */ (reports.get(id)));
}

/**
 * @param {Worker} worker
 * @param {{ id: string, seed: number }} question
 * @returns {Promise<LabReport>}
 */
function ask(worker, question) {
  return new Promise((resolve, reject) => {
    const settle = (/** @type {() => void} */ done) => {
      worker.off("message", onMessage);
      worker.off("error", onError);
      done();
    };
    const onMessage = (/** @type {LabReport} */ report) => settle(() => resolve(report));
    const onError = (/** @type {Error} */ error) => settle(() => reject(error));
    worker.on("message", onMessage);
    worker.on("error", onError);
    worker.postMessage(question);
  });
}
