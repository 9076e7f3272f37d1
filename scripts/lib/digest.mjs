import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";

/** SHA-256 of a file, as lower-case hex. @param {string} path */
export async function fileSha256(path) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest("hex");
}
