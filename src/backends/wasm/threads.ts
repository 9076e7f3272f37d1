import { QuireError, throwIfAborted } from "../../errors.ts";
import { command, control } from "./abi.ts";
import { instantiateKernels, type RunFunction } from "./kernelModule.ts";
import { StallTimer } from "./stallTimer.ts";

/** What a thread gets to start with. */
export interface ThreadStart {
  readonly modules: readonly WebAssembly.Module[];
  readonly memory: WebAssembly.Memory;
  /** Address of the thread's own scratch. */
  readonly scratch: number;
}

export type ThreadReply =
  | { readonly type: "ready" }
  | { readonly type: "failed"; readonly message: string };

/** States of the word control.OPEN. */
export const gate = { CLOSED: 0, OPEN: 1, END: 2 } as const;

/** A thread that has not answered by then does not work. */
const START_TIMEOUT_MS = 20_000;
const NAP_MS = 1;

/** The threads of a plan, the caller's own among them. Runs programs; between them they sleep. */
export class Threads {
  readonly #words: Int32Array;
  readonly #run: RunFunction;
  readonly #scratch: number;
  readonly #ports: readonly MessagePort[];

  /**
   * Starts a thread on each port. `scratches`: an address for each thread, the caller's first.
   * Throws `worker-failed`, `aborted`.
   */
  static async start(
    ports: readonly MessagePort[],
    {
      modules,
      memory,
      scratches,
    }: {
      readonly modules: readonly WebAssembly.Module[];
      readonly memory: WebAssembly.Memory;
      readonly scratches: readonly number[];
    },
    signal?: AbortSignal,
  ): Promise<Threads> {
    const run = await instantiateKernels(modules, memory);
    await Promise.all(
      ports.map((port, i) =>
        startThread(port, { modules, memory, scratch: scratches[i + 1]! }, signal),
      ),
    );
    return new Threads(run, memory, scratches[0]!, ports);
  }

  private constructor(
    run: RunFunction,
    memory: WebAssembly.Memory,
    scratch: number,
    ports: readonly MessagePort[],
  ) {
    this.#words = new Int32Array(memory.buffer);
    this.#run = run;
    this.#scratch = scratch;
    this.#ports = ports;
  }

  /** The caller included. */
  get count(): number {
    return this.#ports.length + 1;
  }

  /** Runs commands to their end. Nobody is in the program afterwards. Throws `worker-failed`. */
  run(program: number, numCommands: number): void {
    if (this.#ports.length === 0) {
      this.#run(program, numCommands, this.#scratch);
      return;
    }
    const words = this.#words;
    words[control.PROGRAM / 4] = program;
    words[control.COMMANDS / 4] = numCommands;
    Atomics.store(words, control.OPEN / 4, gate.OPEN);
    Atomics.add(words, control.EPOCH / 4, 1);
    Atomics.notify(words, control.EPOCH / 4);
    runShared(this.#run, words, program, numCommands, this.#scratch);
    Atomics.store(words, control.OPEN / 4, gate.CLOSED);
    const stall = new StallTimer();
    while (Atomics.load(words, control.ACTIVE / 4) > 0) stall.look();
  }

  /** Ends the threads. Idempotent. */
  dispose(): void {
    if (this.#ports.length === 0) return;
    Atomics.store(this.#words, control.OPEN / 4, gate.END);
    Atomics.add(this.#words, control.EPOCH / 4, 1);
    Atomics.notify(this.#words, control.EPOCH / 4);
    for (const port of this.#ports) port.close();
  }
}

/**
 * Runs commands beside other threads; sleeps in short naps where another one holds the last chunk.
 * Throws `worker-failed` if that one never finishes it.
 */
export function runShared(
  run: RunFunction,
  words: Int32Array,
  program: number,
  numCommands: number,
  scratch: number,
): void {
  let first = 0;
  let stall: StallTimer | undefined;
  while (true) {
    const waiting = run(program + first * command.BYTES, numCommands - first, scratch);
    if (waiting === -1) return;
    if (waiting > 0 || stall === undefined) stall = new StallTimer();
    else stall.look();
    first += waiting;
    const at = (program + first * command.BYTES) / 4;
    Atomics.add(words, at + command.WAITERS, 1);
    const done = Atomics.load(words, at + command.DONE);
    if (done < words[at + command.CHUNKS]!) Atomics.wait(words, at + command.DONE, done, NAP_MS);
    Atomics.sub(words, at + command.WAITERS, 1);
  }
}

function startThread(port: MessagePort, start: ThreadStart, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      port.onmessage = null;
      act();
    };
    const fail = (what: string): void =>
      settle(() =>
        reject(
          new QuireError(
            "worker-failed",
            `A thread of the WASM back end ${what}. Create the engine with threads: 1, or try again.`,
          ),
        ),
      );
    const onAbort = (): void =>
      settle(() => {
        try {
          throwIfAborted(signal, "Starting threads");
        } catch (error) {
          reject(error);
        }
      });
    const timer = setTimeout(
      () => fail(`did not start within ${START_TIMEOUT_MS} ms`),
      START_TIMEOUT_MS,
    );
    signal?.addEventListener("abort", onAbort);
    port.onmessage = ({ data }: MessageEvent<ThreadReply>) => {
      if (data.type === "ready") settle(resolve);
      else fail(`did not start (${data.message})`);
    };
    port.postMessage(start);
  });
}
