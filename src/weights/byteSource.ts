/** Random-access bytes of a model file: a Blob, a buffer, a URL, a stored file. */
export interface ByteSource {
  /** Name for messages: a file name or URL. */
  readonly name: string;
  /** Size of the file in bytes. */
  readonly byteLength: number;
  /**
   * Reads exactly `byteLength` bytes from `offset`. The caller owns the result.
   * Throws QuireError `source-read` if the bytes cannot be had, `aborted` if the signal fires.
   */
  read(offset: number, byteLength: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
}
