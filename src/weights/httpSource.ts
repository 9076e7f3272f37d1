import { invariant, QuireError, throwIfAborted } from "../errors.ts";
import { checkRange } from "./byteRange.ts";
import type { ByteSource } from "./byteSource.ts";
import { type HttpOptions, HttpStream } from "./httpStream.ts";

/** A file on a server. Nothing of it is kept in memory. */
export interface HttpSource extends ByteSource {
  /** The server's ETag or else Last-Modified, if it shows one. */
  readonly etag: string | undefined;
}

/**
 * Opens a URL as a ByteSource. Reads are served one after the other, cheapest in ascending order;
 * dropped connections are opened again. With a server that ignores ranges a read that goes
 * backwards loads the file anew up to there; with one that hides the size (no Content-Length, or
 * the file compressed) the file is read once to count its bytes.
 *
 * Throws QuireError `source-read` if the server or the network refuses, `aborted`.
 */
export async function openHttpSource(
  url: string | URL,
  options: HttpOptions = {},
): Promise<HttpSource> {
  const stream = await HttpStream.open(absoluteUrl(url), 0, options);
  const byteLength = stream.byteLength ?? (await countBytes(stream, options.signal));
  let last: Promise<unknown> = Promise.resolve();
  return {
    name: stream.name,
    byteLength,
    etag: stream.validator,
    async read(offset, length, signal) {
      throwIfAborted(signal, `Reading ${stream.name}`);
      checkRange(stream.name, byteLength, offset, length);
      const bytes = last.then(() => readExactly(stream, offset, length, signal));
      // The next read waits for this one but does not share its failure.
      last = bytes.catch(() => undefined);
      return bytes;
    },
  };
}

/** The URL against the page's or worker's own. Throws QuireError `invalid-argument`. */
export function absoluteUrl(url: string | URL): URL {
  try {
    return new URL(url, globalThis.location?.href);
  } catch (cause) {
    throw new QuireError(
      "invalid-argument",
      `"${url}" is not a URL. Give an absolute one, like https://example.org/model.gguf.`,
      {},
      { cause },
    );
  }
}

async function countBytes(stream: HttpStream, signal: AbortSignal | undefined): Promise<number> {
  while (await stream.read(Number.POSITIVE_INFINITY, signal));
  return stream.position;
}

async function readExactly(
  stream: HttpStream,
  offset: number,
  byteLength: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(byteLength);
  stream.seek(offset);
  let done = 0;
  while (done < byteLength) {
    const part = await stream.read(byteLength - done, signal);
    invariant(part, `${stream.name} ended inside its own size.`);
    bytes.set(part, done);
    done += part.length;
  }
  return bytes;
}
