import { QuireError, throwIfAborted } from "../errors.ts";
import type { PageMessage, WorkerMessage } from "./protocol.ts";

type ThreadsMessage = Extract<PageMessage, { type: "threads" }>;

/** Further workers, started by the page: only it knows how, and nested workers get lost in bundlers. */
export class PageThreads {
  readonly #send: (message: WorkerMessage) => void;
  readonly #waiting = new Map<number, (ports: readonly MessagePort[]) => void>();
  #nextOpenId = 1;

  constructor(send: (message: WorkerMessage) => void) {
    this.#send = send;
  }

  /**
   * Ports of `count` workers that have just started, one each. A worker that fails to start ends the
   * connection, this worker with it. Throws `aborted`.
   */
  async open(count: number, signal?: AbortSignal): Promise<readonly MessagePort[]> {
    const openId = this.#nextOpenId++;
    const what = `Starting ${count} threads`;
    throwIfAborted(signal, what);
    let onAbort = (): void => {};
    try {
      return await new Promise<readonly MessagePort[]>((resolve, reject) => {
        onAbort = () => {
          const cause = signal?.reason;
          reject(new QuireError("aborted", `${what} was aborted.`, {}, { cause }));
        };
        signal?.addEventListener("abort", onAbort);
        this.#waiting.set(openId, resolve);
        this.#send({ type: "openThreads", openId, count });
      });
    } finally {
      this.#waiting.delete(openId);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Takes the page's answer. Ports that nobody waits for any more are closed. */
  receive({ openId, ports }: ThreadsMessage): void {
    const take = this.#waiting.get(openId);
    if (take === undefined) for (const port of ports) port.close();
    else take(ports);
  }
}
