import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { afterAll, expect, test } from "vitest";
import { writeZip } from "./testing/writeZip.ts";
import { listZip, openZipEntry, type ZipEntry } from "./zip.mjs";

const folder = mkdtempSync(join(tmpdir(), "quire-zip-"));
afterAll(() => rmSync(folder, { recursive: true }));

const text = Buffer.from("All work and no play. ".repeat(4000));
const noise = Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * i * 31 + (i >> 3)) & 255));

function zipFile(name: string, bytes: Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

function entryOf(entries: readonly ZipEntry[], name: string): ZipEntry {
  const entry = entries.find((candidate) => candidate.name === name);
  if (entry === undefined) throw new Error(`no ${name}`);
  return entry;
}

test("reads stored, deflated and empty entries", async () => {
  const path = zipFile(
    "plain.zip",
    writeZip([
      { name: "a/text.txt", bytes: text, deflate: true },
      { name: "noise", bytes: noise, deflate: false },
      { name: "empty", bytes: Buffer.alloc(0), deflate: false },
    ]),
  );
  const entries = await listZip(path);
  expect(entries.map(({ name, bytes }) => [name, bytes])).toEqual([
    ["a/text.txt", text.length],
    ["noise", noise.length],
    ["empty", 0],
  ]);
  expect(await buffer(await openZipEntry(path, entryOf(entries, "a/text.txt")))).toEqual(text);
  expect(await buffer(await openZipEntry(path, entryOf(entries, "noise")))).toEqual(noise);
  expect(await buffer(await openZipEntry(path, entryOf(entries, "empty")))).toHaveLength(0);
});

test("reads what another program packed", async () => {
  const source = zipFile("text.txt", text);
  const path = join(folder, "python.zip");
  execFileSync("python3", ["-m", "zipfile", "-c", path, source]);
  const entries = await listZip(path);
  const got = await buffer(await openZipEntry(path, entryOf(entries, "text.txt")));
  expect(got).toEqual(readFileSync(source));
});

test("refuses what is no zip, truncated or damaged", async () => {
  const whole = writeZip([{ name: "text", bytes: text, deflate: true }]);
  await expect(listZip(zipFile("noise.zip", noise))).rejects.toThrow(/no end record/);
  await expect(listZip(zipFile("tiny.zip", Buffer.alloc(3)))).rejects.toThrow(/no end record/);
  await expect(listZip(zipFile("cut.zip", whole.subarray(200)))).rejects.toThrow(
    /not in the file|damaged/,
  );

  const damaged = Buffer.from(whole);
  damaged.fill(0xa5, 60, 120); // inside the deflated bytes
  const path = zipFile("damaged.zip", damaged);
  const [entry] = await listZip(path);
  await expect(openZipEntry(path, entry as ZipEntry).then(buffer)).rejects.toThrow();
});

test("an entry that is longer or shorter than the directory says is an error", async () => {
  const path = zipFile("length.zip", writeZip([{ name: "text", bytes: text, deflate: true }]));
  const [entry] = (await listZip(path)) as [ZipEntry];
  for (const bytes of [text.length - 1, text.length + 1]) {
    const stream = await openZipEntry(path, { ...entry, bytes });
    await expect(buffer(stream)).rejects.toThrow(/bytes/);
  }
});
