import { QuireError, throwIfAborted } from "../errors.ts";
import { pause } from "./pause.ts";
import { urlName } from "./urlName.ts";

export interface HttpOptions {
  /** Aborts the opening. Each read takes a signal of its own. */
  readonly signal?: AbortSignal;
  /** Instead of the global fetch. */
  readonly fetch?: typeof fetch;
  /** How long to wait before each new attempt after a failure; their number bounds the attempts. */
  readonly retryDelaysMs?: readonly number[];
  /** How long a server may send nothing before the connection counts as dropped. */
  readonly stallMs?: number;
}

const RETRY_DELAYS_MS = [250, 500, 1000, 2000, 4000];
/** A wrong address or a missing CORS header looks like a bad network: it is reported soon. */
const MAX_OPEN_RETRIES = 2;
const STALL_MS = 30_000;
/** Asking again for a later range costs about as much as reading this many bytes past. */
const MAX_SKIPPED_BYTES = 1024 * 1024;
const TRANSIENT_STATUSES = new Set([408, 425, 429, 500, 502, 503, 504]);

/** One response and how far it was read. */
interface Body {
  readonly reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  readonly controller: AbortController;
  /** Whether the server honours ranges. If not, each of its bodies starts at 0. */
  readonly ranged: boolean;
  /** Position in the file of the first byte that it was opened for. */
  readonly wanted: number;
  /** Position in the file of the next byte of `reader`. */
  position: number;
}

/**
 * The bytes of a URL in order, from any position on. One response is read as long as the reads go
 * forward: reading a whole file costs one request, with a server that ignores ranges too. A dropped
 * connection is opened again where it broke off, and a file that is no longer the same is an error.
 *
 * Reads must not overlap. No If-Range is sent: across origins that header costs a preflight that
 * many servers refuse, and comparing the validators of both answers finds the same changes.
 */
export class HttpStream {
  /** The URL, for messages. */
  readonly name: string;
  /** Size of the file; undefined while the server has not said it reliably. */
  byteLength: number | undefined;
  /** ETag, else Last-Modified, where the server shows them to us. */
  validator: string | undefined;
  readonly #url: URL;
  readonly #options: HttpOptions;
  readonly #delays: readonly number[];
  #position = 0;
  #rest: Uint8Array<ArrayBuffer> | undefined; // bytes at #position that were received already
  #body: Body | undefined;
  #opened = false;
  #asksRanges = true;

  private constructor(url: URL, position: number, options: HttpOptions) {
    this.#url = url;
    this.#options = options;
    this.#delays = options.retryDelaysMs ?? RETRY_DELAYS_MS;
    this.#position = position;
    this.name = urlName(url);
  }

  /**
   * Opens the URL for reading from `position` on.
   * Throws QuireError `source-read` with the HTTP status or the reason, `aborted`.
   */
  static async open(url: URL, position: number, options: HttpOptions = {}): Promise<HttpStream> {
    const stream = new HttpStream(url, position, options);
    const delays = stream.#delays.slice(0, MAX_OPEN_RETRIES);
    await stream.#retrying(delays, options.signal, () => stream.#connect(options.signal));
    return stream;
  }

  /** Position in the file of the next byte that `read` gives. */
  get position(): number {
    return this.#position;
  }

  seek(position: number): void {
    const ahead = position - this.#position;
    this.#position = position;
    if (ahead >= 0 && this.#rest && ahead < this.#rest.length) {
      this.#rest = this.#rest.subarray(ahead);
      return;
    }
    this.#rest = undefined;
    const body = this.#body;
    if (!body) return;
    const gap = position - body.position;
    if (gap < 0 || (body.ranged && gap > MAX_SKIPPED_BYTES)) this.close();
  }

  /**
   * The next bytes, at most `maxBytes`, or undefined at the file's end.
   * Throws QuireError `source-read`, with data.changed if the file is another one now; `aborted`.
   */
  async read(maxBytes: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer> | undefined> {
    throwIfAborted(signal, `Reading ${this.name}`);
    if (this.#position === this.byteLength) return undefined;
    this.#rest ??= await this.#retrying(this.#delays, signal, () => this.#receive(signal));
    const bytes = this.#rest?.subarray(0, maxBytes);
    if (!bytes) return undefined;
    this.#rest = bytes.length < this.#rest!.length ? this.#rest!.subarray(maxBytes) : undefined;
    this.#position += bytes.length;
    return bytes;
  }

  /** Gives the connection back. A later read opens a new one. */
  close(): void {
    const body = this.#body;
    this.#body = undefined;
    // Aborting the request rejects the pending reads of its body, of which there are none now.
    body?.controller.abort();
  }

  /** The bytes of the open body at #position, or undefined if the file ends there. */
  async #receive(signal: AbortSignal | undefined): Promise<Uint8Array<ArrayBuffer> | undefined> {
    let body = this.#body ?? (await this.#connect(signal));
    for (;;) {
      const { value, done } = await this.#guarded(body.controller, signal, body.reader.read());
      if (done) {
        if (this.#isWhole(body)) return undefined;
        // Some servers send so many bytes of a range and no more: the rest is asked for at once.
        body = await this.#connect(signal);
        continue;
      }
      const start = body.position;
      body.position += value.length;
      if (this.byteLength !== undefined && body.position > this.byteLength) {
        throw this.#failure(
          `the server sent more than the ${this.byteLength} bytes it had announced. It may compress the file: serve it as it is.`,
        );
      }
      if (body.position > this.#position)
        return value.subarray(Math.max(0, this.#position - start));
    }
  }

  /** Whether an ended body ends where the file does. Throws if it brought nothing that was wanted. */
  #isWhole(body: Body): boolean {
    this.byteLength ??= body.position;
    if (body.position === this.byteLength && this.#position === body.position) return true;
    if (this.#position > body.wanted) return false;
    throw this.#failure(`the connection ended at byte ${body.position} of ${this.byteLength}.`, {
      offset: body.position,
      transient: true,
    });
  }

  async #connect(signal: AbortSignal | undefined): Promise<Body> {
    const controller = new AbortController();
    let response: Response;
    try {
      response = await this.#guarded(controller, signal, this.#request(controller.signal));
    } catch (error) {
      // Chromium fails a ranged request that is answered with a compressed file, and does not say
      // why: the next attempt at opening asks for the whole file. Not when opening further on: that
      // file was not compressed before, and the network is bad.
      if (!this.#opened && this.#position === 0) this.#asksRanges = !this.#asksRanges;
      throw error;
    }
    try {
      const askedRange = this.#asksRanges;
      // A piece of a compressed file cannot be decoded. The whole one can.
      this.#asksRanges = !isEncoded(response.headers);
      if (response.status === 206 && !askedRange) {
        throw this.#failure(
          "the server sent a piece of the file when asked for the whole. Serve the file uncompressed, and with ranges or without.",
        );
      }
      if (response.status === 206 && !this.#asksRanges) {
        controller.abort();
        return await this.#connect(signal);
      }
      if (response.status !== 206 && response.status !== 200) throw this.#statusFailure(response);
      if (!response.body) throw this.#failure("the server sent no body.");
      const ranged = response.status === 206;
      const start = ranged ? this.#position : 0;
      this.#checkSameFile(response.headers, this.#sizeOf(response.headers, ranged, start));
      const reader = response.body.getReader();
      const wanted = this.#position;
      this.#body = { reader, controller, ranged, wanted, position: start };
      return this.#body;
    } catch (error) {
      controller.abort();
      throw error;
    }
  }

  #request(signal: AbortSignal): Promise<Response> {
    // An open-ended range is answered by a Content-Length that tells the file's size even where
    // CORS hides Content-Range. no-store: the browser's cache would keep a second copy of a model.
    const headers: HeadersInit = this.#asksRanges ? { Range: `bytes=${this.#position}-` } : {};
    const request = this.#options.fetch ?? fetch;
    return request(this.#url, { headers, signal, cache: "no-store" });
  }

  /** The file's size, or undefined if this answer does not tell it. */
  #sizeOf(headers: Headers, ranged: boolean, start: number): number | undefined {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    if (ranged && range && Number(range[1]) !== start) {
      throw this.#failure(`bytes from ${start} were asked for, the server sent ${range[0]}.`);
    }
    if (ranged && range && range[2] !== "*") return Number(range[2]);
    // With a Content-Encoding, Content-Length counts other bytes than those we get.
    const length = headers.get("content-length");
    return isEncoded(headers) || length === null ? undefined : start + Number(length);
  }

  #checkSameFile(headers: Headers, byteLength: number | undefined): void {
    const validator = headers.get("etag") ?? headers.get("last-modified") ?? undefined;
    if (!this.#opened) {
      this.#opened = true;
      this.validator = validator;
      this.byteLength = byteLength;
      return;
    }
    const otherSize = byteLength !== undefined && byteLength !== (this.byteLength ?? byteLength);
    if (this.validator !== validator || otherSize) {
      throw this.#failure(
        `the file changed on the server while it was read (it was ${this.validator ?? "unversioned"}, ${this.byteLength} bytes; it is ${validator ?? "unversioned"}, ${byteLength} bytes). Open it again.`,
        { changed: true },
      );
    }
  }

  /** Runs `attempt` again after failures that may pass, until the delays are used up. */
  async #retrying<T>(
    delays: readonly number[],
    signal: AbortSignal | undefined,
    attempt: () => Promise<T>,
  ): Promise<T> {
    for (let failures = 0; ; failures++) {
      try {
        return await attempt();
      } catch (error) {
        this.close();
        throwIfAborted(signal, `Reading ${this.name}`);
        const delay = delays[failures];
        const transient = error instanceof QuireError && error.data.transient === true;
        if (!transient || delay === undefined) throw error;
        await pause(delay, signal);
        throwIfAborted(signal, `Reading ${this.name}`);
      }
    }
  }

  /** Awaits the network: a signal or a stall aborts it, and what it throws becomes ours. */
  async #guarded<T>(
    controller: AbortController,
    signal: AbortSignal | undefined,
    work: Promise<T>,
  ): Promise<T> {
    const abort = () => controller.abort();
    const stall = setTimeout(abort, this.#options.stallMs ?? STALL_MS);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) abort();
    try {
      return await work;
    } catch (cause) {
      throwIfAborted(signal, `Reading ${this.name}`);
      const why = controller.signal.aborted
        ? "the server sent nothing for too long."
        : "the connection failed. Check the network, the address, and that the server allows this page's origin (CORS).";
      throw this.#failure(why, { offset: this.#position, transient: true }, cause);
    } finally {
      clearTimeout(stall);
      signal?.removeEventListener("abort", abort);
    }
  }

  #statusFailure({ status }: Response): QuireError {
    return this.#failure(
      `the server answered ${status}. Check the address and its access rights.`,
      {
        status,
        transient: TRANSIENT_STATUSES.has(status),
        // A range past the end, where there were bytes before: the file is a shorter one now.
        changed: status === 416 && this.#opened,
      },
    );
  }

  #failure(message: string, data: QuireError["data"] = {}, cause?: unknown): QuireError {
    return new QuireError("source-read", `${this.name}: ${message}`, data, { cause });
  }
}

function isEncoded(headers: Headers): boolean {
  return (headers.get("content-encoding") ?? "identity") !== "identity";
}
