import { cpus, platform, release, totalmem } from "node:os";
import { describeAdapter } from "../lib/browsers.mjs";

/**
 * What computes, as an engine says it.
 * @typedef {object} BackendFacts
 * @property {string} backend
 * @property {"exact" | "fast"} precision
 * @property {number} threads
 * @property {"relaxed" | "plain" | null} simd
 */

/**
 * Where a measurement was made.
 * @typedef {object} Environment
 * @property {string} date
 * @property {string | null} browser name and version
 * @property {(import("../lib/browsers.mjs").PageAdapter & { name: string }) | null} adapter
 * @property {BackendFacts | null} backend null where several were compared
 * @property {string} cpu
 * @property {number} cores
 * @property {number} memoryBytes
 * @property {string} os
 * @property {string} node
 * @property {{ file: string, sha256: string }} model
 * @property {Readonly<Record<string, unknown>>} [runtimes] what the compared runtimes say of themselves
 */

/**
 * @param {{ browser?: string, adapter?: import("../lib/browsers.mjs").PageAdapter | null, backend?: BackendFacts, model: import("../lib/model.mjs").LocalModel }} measured
 * @returns {Environment}
 */
export function describeEnvironment({ browser, adapter = null, backend, model }) {
  return {
    date: new Date().toISOString(),
    browser: browser ?? null,
    adapter: adapter === null ? null : { ...adapter, name: describeAdapter(adapter) },
    backend: backend ?? null,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    os: `${platform()} ${release()}`,
    node: process.versions.node,
    model: { file: model.name, sha256: model.sha256 },
  };
}

/**
 * The lines that head every table. What ran on the CPU never names an adapter as what was measured.
 * @param {Environment} env
 */
export function environmentLines({ browser, adapter, backend, cpu, cores, model }) {
  const isWebGpu = backend?.backend === "webgpu";
  const on = isWebGpu ? (adapter?.name ?? "no adapter") : "the CPU";
  return [
    `Measured on: ${on}; ${cores} x ${cpu}`,
    ...(browser === null ? [] : [`Browser: ${browser}`]),
    ...(backend === null ? [] : [`Back end: ${backendText(backend)}`]),
    `Model: ${model.file}`,
  ];
}

/** @param {BackendFacts} facts */
export function backendText({ backend, precision, threads, simd }) {
  if (simd === null) return `${backend}, ${precision}`;
  const several = threads === 1 ? "1 thread" : `${threads} threads`;
  return `${backend}, ${precision}, ${several}, ${simd} SIMD`;
}

/** @param {import("../lib/browsers.mjs").BrowserName} name @param {string} version */
export function browserText(name, version) {
  return `${name === "firefox" ? "Firefox" : "Chromium"} ${version}`;
}
