import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { root } from "./paths.mjs";

/** What the library imports: the kernels of the WASM back end as bytes. */
const ID = "virtual:quire-wasm-kernels";
const RESOLVED_ID = `\0${ID}`;

/**
 * A vite plugin that runs the kernel templates at build time and inlines the modules that they
 * write, so that neither the templates nor the library under them are part of the bundle.
 * @returns {import("vite").Plugin}
 */
export function wasmKernels() {
  /** @type {Promise<string> | undefined} */
  let code;
  return {
    name: "quire-wasm-kernels",
    resolveId: (id) => (id === ID ? RESOLVED_ID : undefined),
    load: (id) => (id === RESOLVED_ID ? (code ??= emit()) : undefined),
  };
}

/** @returns {Promise<string>} */
async function emit() {
  // Here and not above: commands that reach this file install vite first.
  const { runnerImport } = await import("vite");
  const { module } = await runnerImport(join(root, "src/backends/wasm/kernels/module.ts"), {
    configFile: false,
    root,
    logLevel: "error",
  });
  const kernels = module.emitKernels();
  const literal = (/** @type {object} */ value) => JSON.stringify(value);
  return [
    `export const common = ${literal(kernels.common.map(pack))};`,
    `export const relaxed = ${literal(pack(kernels.relaxed))};`,
    `export const plain = ${literal(pack(kernels.plain))};`,
  ].join("\n");
}

/**
 * As text. Deflated first: base64 hides from the server's compression what repeats in the bytes.
 * @param {{ bytes: Uint8Array, sharedFlagOffset: number }} module
 */
function pack({ bytes, sharedFlagOffset }) {
  return { base64: deflateRawSync(bytes, { level: 9 }).toString("base64"), sharedFlagOffset };
}
