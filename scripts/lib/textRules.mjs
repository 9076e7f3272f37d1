import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

/**
 * What no text file of the repository may contain: it must mean the same on every machine. The
 * patterns are written so that they do not match themselves.
 * @type {readonly { what: string, pattern: RegExp }[]}
 */
const FORBIDDEN = [
  {
    what: "a path of one machine",
    pattern: /(?<![\w.~}])\/(?:home\/\w|Users\/\w|[r]oot\/|[w]ork\/|[f]arm\/|workspace\/|tmp\/\w)/,
  },
  {
    what: "the host of a package registry",
    pattern:
      /\b(?:registry[.](?:npmjs|yarnpkg)|registry[.]npmmirror|pypi[.]org|[\w.]*pythonhosted[.]org|(?:deb|security|snapshot)[.]debian[.]org)\b/,
  },
  { what: "an address inside one network", pattern: /\b(?:10|192[.]168)(?:[.]\d{1,3}){2,3}:\d+/ },
];

/**
 * @param {string} file name for the messages
 * @param {string} text
 * @returns {string[]} one line for each fault
 */
export function findForbidden(file, text) {
  /** @type {string[]} */
  const faults = [];
  for (const [index, line] of text.split("\n").entries()) {
    for (const { what, pattern } of FORBIDDEN) {
      const found = pattern.exec(line);
      if (found) faults.push(`${file}:${index + 1}: ${what}: ${found[0]}`);
    }
  }
  return faults;
}

/** Whether bytes are text: no zero byte near the start. @param {Uint8Array} bytes */
export function isText(bytes) {
  return !bytes.subarray(0, 8000).includes(0);
}

/** Size as a server sends it. @param {string} file */
export function gzipBytes(file) {
  return gzipSync(readFileSync(file), { level: 9 }).byteLength;
}
