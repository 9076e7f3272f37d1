import { QuireError, throwIfAborted } from "../errors.ts";
import type { ByteSource } from "./byteSource.ts";

const FIRST_READ_BYTES = 64 * 1024;
const MAX_READ_BYTES = 4 * 1024 * 1024;

/**
 * Reads a file once, from its start, in growing chunks, and drops what was consumed. Values are
 * taken synchronously once `fill` has made their bytes available, so that a vocabulary of hundreds
 * of thousands of strings costs a few awaits.
 */
export class GgufReader {
  /** What is being read, for messages. */
  place = "the header";
  readonly #source: ByteSource;
  readonly #signal: AbortSignal | undefined;
  /** No byte at or after this offset is read: a limit on the memory that a header may cost. */
  readonly #maxBytes: number;
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #bytesOffset = 0; // of #bytes in the file
  #next = 0; // in #bytes
  #readBytes = FIRST_READ_BYTES;

  constructor(source: ByteSource, maxBytes: number, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#maxBytes = maxBytes;
    this.#signal = signal;
  }

  /** Offset in the file of the next byte. */
  get position(): number {
    return this.#bytesOffset + this.#next;
  }

  has(count: number): boolean {
    return this.#bytes.length - this.#next >= count;
  }

  /** Throws unless the file has `count` more bytes within the header limit; reads nothing. */
  expect(count: number): void {
    const end = this.position + count;
    if (end > this.#source.byteLength) {
      throw new QuireError(
        "gguf-invalid",
        `${this.#source.name}: the file ends inside ${this.place}: ${count} bytes were expected at ${this.position}, the file has ${this.#source.byteLength}. Download it again.`,
        { offset: this.position, byteLength: this.#source.byteLength },
      );
    }
    if (end > this.#maxBytes) {
      throw new QuireError(
        "gguf-limit",
        `${this.#source.name}: the header is longer than headerBytes = ${this.#maxBytes}, at ${this.place}.`,
        { limit: "headerBytes", maximum: this.#maxBytes, found: end },
      );
    }
  }

  /** Makes `count` bytes available to the take functions. */
  async fill(count: number): Promise<void> {
    if (this.has(count)) return;
    this.expect(count);
    throwIfAborted(this.#signal, `Reading ${this.#source.name}`);
    const rest = this.#bytes.subarray(this.#next);
    const from = this.position + rest.length;
    const wanted = Math.max(count - rest.length, this.#readBytes);
    const more = await this.#source.read(
      from,
      Math.min(wanted, this.#source.byteLength - from),
      this.#signal,
    );
    this.#readBytes = Math.min(2 * this.#readBytes, MAX_READ_BYTES);
    this.#bytesOffset = this.position;
    this.#next = 0;
    this.#bytes = new Uint8Array(rest.length + more.length);
    this.#bytes.set(rest);
    this.#bytes.set(more, rest.length);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Copies the next `bytes.length` bytes of the file, of which few need be in memory at once. */
  async copyTo(bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.length) {
      await this.fill(1);
      const part = this.#bytes.subarray(this.#next, this.#next + bytes.length - done);
      bytes.set(part, done);
      this.#next += part.length;
      done += part.length;
    }
  }

  // --- Taking: the bytes must be there ---

  /** A view of the next bytes, valid until the next `fill`. */
  takeBytes(count: number): Uint8Array {
    const start = this.#next;
    this.#next += count;
    return this.#bytes.subarray(start, this.#next);
  }

  /** The bytes of the next string, or nothing if they are not all there or more than `maxBytes`. */
  takeStringIfThere(maxBytes: number): Uint8Array | undefined {
    if (!this.has(8)) return undefined;
    const length = this.takeCount();
    if (length <= maxBytes && this.has(length)) return this.takeBytes(length);
    this.#next -= 8;
    return undefined;
  }

  /** The view to read `count` bytes with, and where. */
  takeView(count: number): { readonly view: DataView; readonly at: number } {
    const at = this.#next;
    this.#next += count;
    return { view: this.#view, at };
  }

  takeUint32(): number {
    const value = this.#view.getUint32(this.#next, true);
    this.#next += 4;
    return value;
  }

  /** A 64-bit count. Rounded above 2^53, which is above every limit that it is compared with. */
  takeCount(): number {
    const low = this.takeUint32();
    return low + this.takeUint32() * 2 ** 32;
  }
}
