/**
 * A ByteSource over range requests to the command's own server. A URL would do for the engine, but
 * the library keeps the file of a URL in the browser's storage, and this profile is thrown away.
 * @param {{ url: string, name: string, byteLength: number }} file
 * @returns {import("../../src/worker/protocol.ts").ByteSource}
 */
export function openRangeSource({ url, name, byteLength }) {
  return {
    name,
    byteLength,
    async read(offset, length, signal) {
      if (length === 0) return new Uint8Array(0);
      const range = `bytes=${offset}-${offset + length - 1}`;
      const response = await fetch(url, { headers: { range }, ...(signal ? { signal } : {}) });
      if (response.status !== 206) {
        throw new Error(`${url} answered ${response.status} to ${range} instead of 206.`);
      }
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.byteLength !== length) {
        throw new Error(`${url} sent ${bytes.byteLength} bytes to ${range}.`);
      }
      return bytes;
    },
  };
}
