import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

const SKIPPED_FOLDERS = new Set(["node_modules", "dist", ".cache", ".git"]);

/**
 * All files under a folder (or the file itself), sorted, without build results.
 * @param {string} path
 * @returns {string[]} absolute paths
 */
export function listFiles(path) {
  if (!existsSync(path)) return [];
  if (statSync(path).isFile()) return [path];
  /** @type {string[]} */
  const files = [];
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory() && !SKIPPED_FOLDERS.has(entry.name)) {
      files.push(...listFiles(join(path, entry.name)));
    } else if (entry.isFile()) {
      files.push(join(path, entry.name));
    }
  }
  return files.sort();
}

/**
 * A digest over names and contents of files: times of change say nothing after a clone or checkout.
 * @param {string} base names are taken relative to it
 * @param {readonly string[]} files absolute paths
 */
export function contentStamp(base, files) {
  const hash = createHash("sha256");
  for (const file of files) {
    const bytes = readFileSync(file);
    hash.update(`${relative(base, file).split(sep).join("/")}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

/** @param {string} file */
export function readStamp(file) {
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

/** @param {string} file @param {string} stamp */
export function writeStamp(file, stamp) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, stamp);
}
