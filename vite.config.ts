import { defineConfig, type LibraryOptions, type Plugin, type UserConfig } from "vite";
import { wasmKernels } from "./scripts/lib/wasmKernels.mjs";

// The library is built in three forms, one a mode: `vite build --mode module|worker|global`.
// All are whole: nothing is imported at run time, and no file looks for another beside it.

const FORMS: Readonly<Record<string, LibraryOptions>> = {
  /** `import ... from "quire"`: the worker is inside, as text. */
  module: { entry: "src/index.ts", formats: ["es"], fileName: () => "index.js" },
  /** `quire/worker`: for pages that may not start workers from blobs. */
  worker: { entry: "src/worker/entry.ts", formats: ["es"], fileName: () => "worker.js" },
  /** `<script src=".../global.js">`: everything under `Quire`. */
  global: { entry: "src/index.ts", formats: ["iife"], fileName: () => "global.js", name: "Quire" },
};

/**
 * Declarations of the two files that export nothing. The worker's say no more than that, which keeps
 * the types of WebGPU out of the package.
 */
const TYPES: Readonly<Record<string, string>> = {
  worker: "export {};\n",
  global: 'declare global {\n  const Quire: typeof import("./types/index.js");\n}\nexport {};\n',
};

function declarations(mode: string): Plugin {
  return {
    name: "quire-declarations",
    generateBundle() {
      const source = TYPES[mode];
      if (source !== undefined) this.emitFile({ type: "asset", fileName: `${mode}.d.ts`, source });
    },
  };
}

export default defineConfig(({ mode }): UserConfig => {
  const form = FORMS[mode];
  if (form === undefined) return {};
  return {
    publicDir: false,
    // Relative URLs, should a file ever be referred to.
    base: "./",
    plugins: [declarations(mode), wasmKernels()],
    build: {
      lib: form,
      target: "es2022",
      outDir: "dist",
      emptyOutDir: mode === "module",
      minify: true,
      // Vite leaves the white space in ES modules for the sake of bundlers that read comments there.
      rolldownOptions: { output: { minify: true } },
      sourcemap: false,
      copyPublicDir: false,
      reportCompressedSize: true,
    },
    worker: { format: "iife", plugins: () => [wasmKernels()] },
  };
});
