import { QuireError, throwIfAborted } from "../errors.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import { fromWireError, type PageMessage, type WorkerMessage } from "./protocol.ts";

type ReadDone = Extract<PageMessage, { type: "readDone" }>;

/** A byte source that lives on the page: each read is a message there and one back. */
export class PageSource implements ByteSource {
  readonly name: string;
  readonly byteLength: number;
  readonly #send: (message: WorkerMessage) => void;
  readonly #reads = new Map<number, (done: ReadDone["result"]) => void>();
  #nextReadId = 1;

  constructor(name: string, byteLength: number, send: (message: WorkerMessage) => void) {
    this.name = name;
    this.byteLength = byteLength;
    this.#send = send;
  }

  async read(
    offset: number,
    byteLength: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const readId = this.#nextReadId++;
    const what = `Reading ${byteLength} bytes at ${offset} of ${this.name}`;
    throwIfAborted(signal, what);
    let onAbort = (): void => {};
    try {
      const result = await new Promise<ReadDone["result"]>((resolve, reject) => {
        onAbort = () => {
          this.#send({ type: "cancelRead", readId });
          const cause = signal?.reason;
          reject(new QuireError("aborted", `${what} was aborted.`, {}, { cause }));
        };
        signal?.addEventListener("abort", onAbort);
        this.#reads.set(readId, resolve);
        this.#send({ type: "read", readId, offset, byteLength });
      });
      if (!result.ok) throw fromWireError(result.error);
      if (result.value.byteLength === byteLength) return result.value;
      const found = result.value.byteLength;
      const message = `${what} gave ${found} bytes. The ByteSource must return exactly what is asked.`;
      throw new QuireError("source-read", message, { offset, byteLength, found });
    } finally {
      this.#reads.delete(readId);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Takes the page's answer; one that nobody waits for any more is dropped. */
  receive(message: ReadDone): void {
    this.#reads.get(message.readId)?.(message.result);
  }
}
