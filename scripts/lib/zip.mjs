import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { Transform } from "node:stream";
import { createInflateRaw } from "node:zlib";

const END_SIGNATURE = 0x06054b50;
const CENTRAL_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const END_BYTES = 22;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const MAX_COMMENT_BYTES = 0xffff;
/** A central directory larger than this is refused. */
const MAX_DIRECTORY_BYTES = 16 << 20;

/**
 * @typedef {object} ZipEntry
 * @property {string} name
 * @property {number} method 0 = stored, 8 = deflate
 * @property {number} compressedBytes
 * @property {number} bytes
 * @property {number} headerOffset
 */

/**
 * Lists the entries of a zip file (no zip64, no encryption: a wheel of this size has neither).
 * @param {string} path
 * @returns {Promise<ZipEntry[]>}
 */
export async function listZip(path) {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const tail = Math.min(size, END_BYTES + MAX_COMMENT_BYTES);
    const end = await readAt(file, size - tail, tail);
    let at = end.length - END_BYTES;
    while (at >= 0 && end.readUInt32LE(at) !== END_SIGNATURE) at -= 1;
    if (at < 0) throw new Error(`${path} is not a zip file: it has no end record.`);
    const count = end.readUInt16LE(at + 10);
    const length = end.readUInt32LE(at + 12);
    const offset = end.readUInt32LE(at + 16);
    if (length > MAX_DIRECTORY_BYTES || offset + length > size) {
      throw new Error(
        `${path}: the zip directory (${length} bytes at ${offset}) is not in the file.`,
      );
    }
    return parseDirectory(await readAt(file, offset, length), count, path);
  } finally {
    await file.close();
  }
}

/**
 * @param {Buffer} directory
 * @param {number} count
 * @param {string} path
 */
function parseDirectory(directory, count, path) {
  /** @type {ZipEntry[]} */
  const entries = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL_BYTES > directory.length || directory.readUInt32LE(at) !== CENTRAL_SIGNATURE) {
      throw new Error(`${path}: entry ${i} of the zip directory is damaged.`);
    }
    const nameBytes = directory.readUInt16LE(at + 28);
    const extraBytes = directory.readUInt16LE(at + 30);
    const commentBytes = directory.readUInt16LE(at + 32);
    const entry = {
      name: directory.toString("utf8", at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes),
      method: directory.readUInt16LE(at + 10),
      compressedBytes: directory.readUInt32LE(at + 20),
      bytes: directory.readUInt32LE(at + 24),
      headerOffset: directory.readUInt32LE(at + 42),
    };
    if ((directory.readUInt16LE(at + 8) & 1) !== 0 || entry.bytes === 0xffffffff) {
      throw new Error(`${path}: ${entry.name} is encrypted or zip64, which is not supported.`);
    }
    entries.push(entry);
    at += CENTRAL_BYTES + nameBytes + extraBytes + commentBytes;
  }
  return entries;
}

/**
 * Opens one entry's bytes as a stream. Ends with an error if they are not exactly `entry.bytes` long.
 * @param {string} path
 * @param {ZipEntry} entry
 * @returns {Promise<import("node:stream").Readable>}
 */
export async function openZipEntry(path, entry) {
  const file = await open(path);
  let start;
  try {
    // The local header repeats name and extra field, at lengths of its own.
    const header = await readAt(file, entry.headerOffset, LOCAL_BYTES);
    if (header.readUInt32LE(0) !== LOCAL_SIGNATURE) {
      throw new Error(`${path}: ${entry.name} has no local header.`);
    }
    start = entry.headerOffset + LOCAL_BYTES + header.readUInt16LE(26) + header.readUInt16LE(28);
  } finally {
    await file.close();
  }
  if (entry.method !== 0 && entry.method !== 8) {
    throw new Error(
      `${path}: ${entry.name} uses zip method ${entry.method}; 0 and 8 are supported.`,
    );
  }
  const checked = exactLength(entry.bytes, `${path}: ${entry.name}`);
  if (entry.compressedBytes === 0) {
    checked.end();
    return checked;
  }
  const raw = createReadStream(path, { start, end: start + entry.compressedBytes - 1 });
  const stages = entry.method === 8 ? [createInflateRaw(), checked] : [checked];
  /** @type {import("node:stream").Readable} */
  let last = raw;
  for (const stage of stages) {
    const source = last;
    source.on("error", (error) => stage.destroy(error));
    stage.on("close", () => source.destroy());
    last = source.pipe(stage);
  }
  return last;
}

/** @param {number} byteLength @param {string} what */
function exactLength(byteLength, what) {
  let seen = 0;
  return new Transform({
    transform(chunk, _encoding, done) {
      seen += chunk.length;
      if (seen > byteLength) done(new Error(`${what} is longer than its ${byteLength} bytes.`));
      else done(null, chunk);
    },
    flush(done) {
      if (seen === byteLength) done();
      else done(new Error(`${what} has ${seen} bytes instead of ${byteLength}.`));
    },
  });
}

/**
 * @param {import("node:fs/promises").FileHandle} file
 * @param {number} offset
 * @param {number} byteLength
 */
async function readAt(file, offset, byteLength) {
  const buffer = Buffer.alloc(byteLength);
  const { bytesRead } = await file.read(buffer, 0, byteLength, offset);
  if (bytesRead !== byteLength) throw new Error(`A read of ${byteLength} bytes got ${bytesRead}.`);
  return buffer;
}
