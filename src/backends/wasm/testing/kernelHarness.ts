import { setFlagsFromString } from "node:v8";
import { invariant } from "../../../errors.ts";
import { SCRATCH_BYTES, step } from "../abi.ts";
import { Arena } from "../arena.ts";
import { instantiateKernels, type RunFunction } from "../kernelModule.ts";
import type { Wasm } from "../kernels/emit.ts";
import { byName, emitModule } from "../kernels/module.ts";
import { defineRun } from "../kernels/run.ts";
import { Program, type StepCounts } from "../program.ts";

// Node 20 has relaxed SIMD behind a flag; it must be set before the first module is compiled.
setFlagsFromString("--experimental-wasm-relaxed-simd");

/** Runs kernels in Node as the back end does: reserve, record, bind, run. */
export class KernelHarness {
  readonly arena = new Arena();
  readonly program = new Program(this.arena);
  readonly #kernels: readonly Wasm[];
  readonly #scratch = this.arena.reserve("scratch", SCRATCH_BYTES);
  #memory: WebAssembly.Memory | undefined;
  #run: RunFunction | undefined;

  constructor(kernels: readonly Wasm[]) {
    this.#kernels = kernels;
  }

  /** Makes the memory; nothing can be reserved or recorded after it. */
  async bind(): Promise<void> {
    this.program.seal();
    const pages = Math.ceil(this.arena.byteLength / 65536);
    this.#memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const emitted = [emitModule({ ...defineRun() }), emitModule(byName(this.#kernels))];
    const modules = emitted.map(({ bytes }) => new WebAssembly.Module(bytes));
    this.#run = await instantiateKernels(modules, this.#memory);
    this.program.bind(
      this.#memory,
      this.#kernels.map(({ name }) => name),
    );
  }

  /** Runs the program once; `numThreads` only changes how it is cut into chunks. */
  run(counts: Partial<StepCounts> = {}, numThreads = 1): void {
    invariant(this.#run, "bind comes before run.");
    const all = { rows: 1, logits: 1, items: 1, merges: 0, ...counts };
    const words = this.int32();
    words[step.ROWS / 4] = all.rows;
    words[step.LOGITS / 4] = all.logits;
    words[step.ITEMS / 4] = all.items;
    words[step.MERGES / 4] = all.merges;
    this.program.prepare(all, numThreads);
    const stalled = this.#run(this.program.address, this.program.numCommands, this.#scratch);
    invariant(stalled === -1, `Command ${stalled} was not finished.`);
  }

  get memory(): WebAssembly.Memory {
    invariant(this.#memory, "bind comes before any access to the memory.");
    return this.#memory;
  }

  get #buffer(): ArrayBufferLike {
    return this.memory.buffer;
  }

  float32(address = 0, length?: number): Float32Array {
    return new Float32Array(this.#buffer, address, length);
  }

  int32(address = 0, length?: number): Int32Array {
    return new Int32Array(this.#buffer, address, length);
  }

  bytes(address = 0, length?: number): Uint8Array {
    return new Uint8Array(this.#buffer, address, length);
  }
}
