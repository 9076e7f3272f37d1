import { QuireError } from "../errors.ts";
import {
  type ByteSource,
  type PageMessage,
  type Reply,
  toWireError,
  type WorkerMessage,
} from "../worker/protocol.ts";

/**
 * Answers the worker's range requests from a source that lives on the page. The bytes move over
 * without a copy where they fill a buffer of their own. Returns what aborts every read under way.
 */
export function serveByteSource(port: MessagePort, source: ByteSource): () => void {
  const reads = new Map<number, AbortController>();

  async function serve(readId: number, offset: number, byteLength: number): Promise<void> {
    const answer = (result: Reply<Uint8Array<ArrayBuffer>>, transfer: Transferable[]) => {
      const message: PageMessage = { type: "readDone", readId, result };
      port.postMessage(message, transfer);
    };
    const what = `Reading ${byteLength} bytes at ${offset} of ${source.name}`;
    const abort = new AbortController();
    reads.set(readId, abort);
    try {
      const value = movable(await source.read(offset, byteLength, abort.signal), what);
      answer({ ok: true, value }, [value.buffer]);
    } catch (cause) {
      // Also where the bytes can't be posted, as those of a WebAssembly.Memory: the worker waits.
      const error =
        cause instanceof QuireError
          ? cause
          : new QuireError("source-read", `${what} failed.`, {}, { cause });
      answer({ ok: false, error: toWireError(error) }, []);
    } finally {
      reads.delete(readId);
    }
  }

  port.addEventListener("message", (event: MessageEvent<WorkerMessage>) => {
    const message = event.data;
    if (message.type === "read") void serve(message.readId, message.offset, message.byteLength);
    if (message.type === "cancelRead") reads.get(message.readId)?.abort();
  });
  return () => {
    for (const abort of reads.values()) abort.abort();
  };
}

/** The bytes in a buffer that may move to the worker: their own, or a copy where it holds more or is shared. */
function movable(bytes: Uint8Array, what: string): Uint8Array<ArrayBuffer> {
  // By tag and not by instanceof: the bytes may come from another realm.
  if (!ArrayBuffer.isView(bytes) || bytes[Symbol.toStringTag] !== "Uint8Array") {
    const message = `${what} gave no Uint8Array. The ByteSource must return the bytes as one.`;
    throw new QuireError("source-read", message);
  }
  const { buffer } = bytes;
  const isShared = buffer[Symbol.toStringTag] === "SharedArrayBuffer";
  // A buffer that has moved before is empty; copying it throws.
  const isOwn = bytes.byteLength > 0 && bytes.byteLength === buffer.byteLength && !isShared;
  return isOwn ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
}
