import type { QuireError } from "../errors.ts";
import type { ThreadMessage, ThreadReady } from "../worker/protocol.ts";
import { OwnedWorker } from "./ownedWorker.ts";

export interface ThreadWorkersOptions {
  readonly createWorker: () => Worker;
  /** Milliseconds from a thread's creation to its answer. */
  readonly timeoutMs: number;
  /** Called when any of them fails to start, crashes or is gone: the engine cannot go on then. */
  readonly onFailed: (error: QuireError) => void;
}

/** The workers that compute for one engine worker. Its script is theirs too. */
export class ThreadWorkers {
  readonly #options: ThreadWorkersOptions;
  readonly #workers: OwnedWorker[] = [];

  constructor(options: ThreadWorkersOptions) {
    this.#options = options;
  }

  /**
   * Starts `count` workers and resolves, when all have answered, to the ports for the engine worker,
   * one each. Never settles where one does not start: `onFailed` tells. Throws what OwnedWorker does.
   */
  open(count: number): Promise<MessagePort[]> {
    return Promise.all(Array.from({ length: count }, () => this.#open()));
  }

  terminate(): void {
    for (const worker of this.#workers) worker.terminate();
    this.#workers.length = 0;
  }

  #open(): Promise<MessagePort> {
    const worker = new OwnedWorker({ ...this.#options, role: "thread" });
    this.#workers.push(worker);
    const engine = new MessageChannel();
    const page = new MessageChannel();
    const message: ThreadMessage = {
      type: "thread",
      port: engine.port2,
      page: page.port2,
      lockName: worker.lockName,
    };
    worker.post(message, [engine.port2, page.port2]);
    return new Promise((resolve) => {
      page.port1.onmessage = ({ data }: MessageEvent<ThreadReady>) => {
        page.port1.close();
        worker.started(data.holdsLock);
        resolve(engine.port1);
      };
    });
  }
}
