import { QuireError } from "../errors.ts";

/** Throws `source-read` unless a file of `fileBytes` has the bytes [offset, offset + byteLength). */
export function checkRange(
  name: string,
  fileBytes: number,
  offset: number,
  byteLength: number,
): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(byteLength);
  if (whole && offset >= 0 && byteLength >= 0 && offset + byteLength <= fileBytes) return;
  throw new QuireError(
    "source-read",
    `${name}: ${byteLength} bytes at ${offset} were asked for; the file has ${fileBytes}.`,
    { offset, byteLength, fileBytes },
  );
}
