import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel, Worker } from "node:worker_threads";
import { build } from "vite";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { wasmKernels } from "../../scripts/lib/wasmKernels.mjs";
import type { Backend } from "../../src/backends/ops.ts";
import { createWasmBackend } from "../../src/backends/wasm/backend.ts";

/** The thread's side in real threads of Node: the built script, as a browser's worker runs it. */
export class NodeThreads {
  readonly #folder = mkdtempSync(join(tmpdir(), "quire-thread-"));
  readonly #workers: Worker[] = [];

  /** Builds the script. End with `dispose`. */
  static async create(): Promise<NodeThreads> {
    const threads = new NodeThreads();
    await build({
      configFile: false,
      logLevel: "error",
      plugins: [wasmKernels()],
      build: {
        lib: {
          entry: inRoot("src/backends/wasm/thread.ts"),
          formats: ["cjs"],
          fileName: () => "thread.js",
        },
        outDir: threads.#folder,
        target: "es2022",
      },
    });
    return threads;
  }

  /** A back end on `threads` of them; `code` replaces what the threads beside the caller's run. */
  open(threads: number, code = this.#code): Promise<Backend> {
    return createWasmBackend({
      precision: "fast",
      simd: "plain", // a worker of Node has no flag for relaxed SIMD
      threads,
      openThreads: async (count) => Array.from({ length: count }, () => this.#start(code)),
    });
  }

  /** Ends the workers; others can be opened after it. */
  async endWorkers(): Promise<void> {
    for (const worker of this.#workers.splice(0)) await worker.terminate();
  }

  async dispose(): Promise<void> {
    await this.endWorkers();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #code(): string {
    return `const { workerData } = require("node:worker_threads");
require(${JSON.stringify(join(this.#folder, "thread.js"))}).serveThread(workerData);`;
  }

  /** Node's ports have all of a browser's that threads use. */
  #start(code: string): globalThis.MessagePort {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(code, { eval: true, workerData: port2, transferList: [port2] });
    this.#workers.push(worker);
    return port1 as unknown as globalThis.MessagePort;
  }
}
