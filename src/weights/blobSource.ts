import { QuireError, throwIfAborted } from "../errors.ts";
import { checkRange } from "./byteRange.ts";
import type { ByteSource } from "./byteSource.ts";

const CHOSEN = "The file was changed, moved or deleted after it was chosen: choose it again.";

/**
 * A Blob, or a File from disk or from OPFS. Reading fails once the file behind it has changed;
 * `advice` says then what to do.
 */
export function createBlobSource(
  blob: Blob,
  name = nameOf(blob),
  advice: string = CHOSEN,
): ByteSource {
  const unreadable = (offset: number, byteLength: number, cause?: unknown): QuireError =>
    new QuireError(
      "source-read",
      `${name}: ${byteLength} bytes at ${offset} could not be read. ${advice}`,
      { offset, byteLength },
      { cause },
    );
  return {
    name,
    byteLength: blob.size,
    async read(offset, byteLength, signal) {
      throwIfAborted(signal, `Reading ${name}`);
      checkRange(name, blob.size, offset, byteLength);
      const buffer = await blob
        .slice(offset, offset + byteLength)
        .arrayBuffer()
        .catch((cause: unknown) => {
          throw unreadable(offset, byteLength, cause);
        });
      throwIfAborted(signal, `Reading ${name}`);
      if (buffer.byteLength !== byteLength) throw unreadable(offset, byteLength);
      return new Uint8Array(buffer);
    },
  };
}

function nameOf(blob: Blob): string {
  return "name" in blob && typeof blob.name === "string" && blob.name !== "" ? blob.name : "blob";
}
