import { throwIfAborted } from "../errors.ts";
import { checkRange } from "./byteRange.ts";
import type { ByteSource } from "./byteSource.ts";

/** A model file that is in memory already. Its bytes must not change while the source is in use. */
export function createBufferSource(bytes: ArrayBuffer | Uint8Array, name = "buffer"): ByteSource {
  const view = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  return {
    name,
    byteLength: view.byteLength,
    async read(offset, byteLength, signal) {
      throwIfAborted(signal, `Reading ${name}`);
      checkRange(name, view.byteLength, offset, byteLength);
      // A copy, which the caller may keep or transfer.
      return view.slice(offset, offset + byteLength);
    },
  };
}
