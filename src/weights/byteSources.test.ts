import { describe, expect, it } from "vitest";
import { createBlobSource } from "./blobSource.ts";
import { createBufferSource } from "./bufferSource.ts";

const FILE = Uint8Array.from({ length: 1000 }, (_, i) => i & 255);
const padded = new Uint8Array(1010);
padded.set(FILE, 10);

describe.each([
  ["a Blob", () => createBlobSource(new Blob([FILE]), "file")],
  ["an ArrayBuffer", () => createBufferSource(FILE.buffer, "file")],
  ["a view into a buffer", () => createBufferSource(padded.subarray(10), "file")],
])("%s", (_, create) => {
  it("gives the bytes of a range, as a copy", async () => {
    const source = create();
    expect([source.name, source.byteLength]).toEqual(["file", 1000]);
    const bytes = await source.read(100, 50);
    expect(bytes).toEqual(FILE.slice(100, 150));
    expect(bytes.buffer.byteLength).toBe(50);
    bytes.fill(0);
    expect(await source.read(100, 50)).toEqual(FILE.slice(100, 150));
    expect(await source.read(0, 1000)).toEqual(FILE);
    expect(await source.read(1000, 0)).toEqual(new Uint8Array(0));
  });

  it.each([
    [-1, 2],
    [999, 2],
    [1001, 0],
    [0, -1],
    [0.5, 1],
    [0, Number.NaN],
    [Number.MAX_SAFE_INTEGER, 1],
  ])("refuses the range %d, %d", async (offset, length) => {
    await expect(create().read(offset, length)).rejects.toMatchObject({
      code: "source-read",
      data: { fileBytes: 1000 },
    });
  });

  it("refuses an aborted read", async () => {
    await expect(create().read(0, 1, AbortSignal.abort())).rejects.toMatchObject({
      code: "aborted",
    });
  });
});

it("names a File by its name", () => {
  expect(createBlobSource(new File([FILE], "model.gguf")).name).toBe("model.gguf");
  expect(createBlobSource(new Blob([FILE])).name).toBe("blob");
});

it("says when a file cannot be read any more", async () => {
  const gone = new Blob([FILE]);
  gone.slice = () => {
    const piece = new Blob();
    piece.arrayBuffer = () => Promise.reject(new DOMException("changed", "NotReadableError"));
    return piece;
  };
  await expect(createBlobSource(gone).read(0, 10)).rejects.toMatchObject({
    code: "source-read",
    cause: { name: "NotReadableError" },
    message: expect.stringContaining("choose it again"),
  });
  await expect(createBlobSource(gone, "gone", "Do this.").read(0, 10)).rejects.toMatchObject({
    message: expect.stringMatching(/^gone: 10 bytes at 0 could not be read\. Do this\.$/),
  });
});
