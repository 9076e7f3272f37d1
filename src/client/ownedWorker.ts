import { QuireError } from "../errors.ts";
import { randomHex } from "./randomHex.ts";

export interface OwnedWorkerOptions {
  readonly createWorker: () => Worker;
  /** What messages call it. */
  readonly role: "worker" | "thread";
  /** Milliseconds from its creation to `started`. */
  readonly timeoutMs: number;
  /** Called at most once, with `worker-failed`: it did not start, it crashed, or it is gone. */
  readonly onFailed: (error: QuireError) => void;
}

const SUBJECTS = { worker: "The worker", thread: "A thread of the engine" } as const;

const BLOCKED_HINT =
  "Either the page's Content-Security-Policy blocks it (the inlined worker needs `worker-src blob:`; " +
  "without that, pass createEngine a `worker` made from the file `quire/worker`), or the worker's " +
  "file was not found or failed to load (look at the browser's console).";

/** A worker that this page has started, and what can become of it: until `terminate` its end is news. */
export class OwnedWorker {
  /** A Web Lock for the worker to hold for life. */
  readonly lockName = `quire-worker-${randomHex(16)}`;
  readonly #worker: Worker;
  readonly #subject: string;
  readonly #onFailed: (error: QuireError) => void;
  readonly #lockWait = new AbortController();
  readonly #timer: ReturnType<typeof setTimeout>;
  #hasStarted = false;
  #hasEnded = false;

  /** Starts it. Throws `worker-failed`, and `invalid-argument` where the user's option gives no worker. */
  constructor({ createWorker, role, timeoutMs, onFailed }: OwnedWorkerOptions) {
    this.#subject = SUBJECTS[role];
    this.#onFailed = onFailed;
    try {
      this.#worker = createWorker();
    } catch (cause) {
      if (cause instanceof QuireError) throw cause;
      const message = `${this.#subject} could not be made. ${BLOCKED_HINT}`;
      throw new QuireError("worker-failed", message, {}, { cause });
    }
    this.#worker.addEventListener("error", (event) => this.#crashed(event));
    this.#worker.addEventListener("messageerror", () => this.messageFailed());
    this.#timer = setTimeout(() => {
      const message = `${this.#subject} did not answer within ${timeoutMs} ms. ${BLOCKED_HINT}`;
      this.#fail(new QuireError("worker-failed", message, { timeoutMs }));
    }, timeoutMs);
  }

  post(message: unknown, transfer: Transferable[]): void {
    this.#worker.postMessage(message, transfer);
  }

  /** It has answered. From now on the lock, where it holds one, tells that it is gone. */
  started(holdsLock: boolean): void {
    this.#hasStarted = true;
    clearTimeout(this.#timer);
    if (holdsLock && !this.#hasEnded) this.#watchLock();
  }

  /** A message that came from it could not be read. */
  messageFailed(): void {
    const message = "A message between page and worker could not be read. Create a new engine.";
    this.#fail(new QuireError("worker-failed", message));
  }

  /** Ends it, without any news. Idempotent. */
  terminate(): void {
    this.#hasEnded = true;
    clearTimeout(this.#timer);
    this.#lockWait.abort();
    this.#worker.terminate();
  }

  #fail(error: QuireError): void {
    if (this.#hasEnded) return;
    this.terminate();
    this.#onFailed(error);
  }

  /** A worker that the browser ends (out of memory) sends no event, but it lets go of its lock. */
  #watchLock(): void {
    const onGone = () => {
      const message = `${this.#subject} is gone: the browser ended it, most likely for lack of memory.`;
      this.#fail(new QuireError("worker-failed", `${message} Create a new engine.`));
    };
    navigator.locks
      .request(this.lockName, { signal: this.#lockWait.signal }, onGone)
      .catch(() => {}); // Aborted by `terminate`.
  }

  #crashed(event: ErrorEvent): void {
    event.preventDefault?.();
    const found = event.message ? `: ${event.message}` : "";
    const message = this.#hasStarted
      ? `${this.#subject} crashed${found}. Create a new engine.`
      : `${this.#subject} did not start${found}. ${BLOCKED_HINT}`;
    this.#fail(new QuireError("worker-failed", message, { detail: event.message ?? "" }));
  }
}
