import {
  type ByteSource,
  type PageMessage,
  type Reply,
  toWireError,
  type WorkerMessage,
} from "../worker/protocol.ts";

/**
 * Answers the worker's range requests from a source that lives on the page. The bytes move over
 * without a copy unless they are a view on a larger buffer.
 */
export function serveByteSource(port: MessagePort, source: ByteSource): void {
  const reads = new Map<number, AbortController>();

  async function serve(readId: number, offset: number, byteLength: number): Promise<void> {
    const abort = new AbortController();
    reads.set(readId, abort);
    let result: Reply<Uint8Array<ArrayBuffer>>;
    const transfer: Transferable[] = [];
    try {
      const bytes = await source.read(offset, byteLength, abort.signal);
      const isWhole = bytes.byteLength === bytes.buffer.byteLength;
      const value = isWhole ? bytes : bytes.slice();
      transfer.push(value.buffer);
      result = { ok: true, value };
    } catch (error) {
      result = { ok: false, error: toWireError(error) };
    } finally {
      reads.delete(readId);
    }
    const message: PageMessage = { type: "readDone", readId, result };
    port.postMessage(message, transfer);
  }

  port.addEventListener("message", (event: MessageEvent<WorkerMessage>) => {
    const message = event.data;
    if (message.type === "read") void serve(message.readId, message.offset, message.byteLength);
    if (message.type === "cancelRead") reads.get(message.readId)?.abort();
  });
}
