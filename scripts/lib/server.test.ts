import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { parseRange, type ServerOptions, type StaticServer, startServer } from "./server.mjs";

const folder = mkdtempSync(join(tmpdir(), "quire-server-"));
mkdirSync(join(folder, "site/sub"), { recursive: true });
writeFileSync(join(folder, "site/index.html"), "<p>hello</p>");
writeFileSync(join(folder, "site/app.js"), "export {};");
writeFileSync(join(folder, "site/empty.bin"), "");
writeFileSync(join(folder, "secret.txt"), "secret");
const digits = "0123456789";
writeFileSync(join(folder, "data.gguf"), digits);
afterAll(() => rmSync(folder, { recursive: true }));

let server: StaticServer | undefined;
afterEach(async () => server?.close());

async function start(options: ServerOptions = {}): Promise<StaticServer> {
  server = await startServer({
    folders: { "/": join(folder, "site") },
    files: { "/m/my model.gguf": join(folder, "data.gguf") },
    json: { "/quire.json": { model: null } },
    ...options,
  });
  return server;
}

test("serves files, folders, named files and values with the right types", async () => {
  const { url } = await start();
  const page = await fetch(`${url}/`);
  expect(await page.text()).toBe("<p>hello</p>");
  expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(page.headers.get("cross-origin-opener-policy")).toBe("same-origin");
  expect(page.headers.get("cross-origin-embedder-policy")).toBe("require-corp");
  const script = await fetch(`${url}/app.js?x=1`);
  expect(script.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
  expect(await (await fetch(`${url}/m/my%20model.gguf`)).text()).toBe(digits);
  expect(await (await fetch(`${url}/quire.json`)).json()).toEqual({ model: null });
  expect((await fetch(`${url}/empty.bin`)).status).toBe(200);
  expect((await fetch(`${url}/none`)).status).toBe(404);
  expect((await fetch(`${url}/sub`)).status).toBe(404);
  expect((await fetch(`${url}/`, { method: "POST" })).status).toBe(405);
});

test("isolation can be switched off", async () => {
  const { url } = await start({ isolated: false });
  const { headers } = await fetch(`${url}/`);
  expect(headers.get("cross-origin-opener-policy")).toBeNull();
  expect(headers.get("cross-origin-embedder-policy")).toBeNull();
});

test("answers ranges with 206, unless it is told not to", async () => {
  const { url } = await start();
  const model = `${url}/m/my%20model.gguf`;
  const part = await fetch(model, { headers: { range: "bytes=2-4" } });
  expect([part.status, part.headers.get("content-range"), await part.text()]).toEqual([
    206,
    "bytes 2-4/10",
    "234",
  ]);
  const beyond = await fetch(model, { headers: { range: "bytes=10-" } });
  expect([beyond.status, beyond.headers.get("content-range")]).toEqual([416, "bytes */10"]);

  const etag = part.headers.get("etag") ?? "";
  const range = "bytes=2-";
  const same = await fetch(model, { headers: { range, "if-range": etag } });
  expect([same.status, await same.text()]).toEqual([206, "23456789"]);
  const other = await fetch(model, { headers: { range, "if-range": '"other"' } });
  expect([other.status, await other.text()]).toEqual([200, digits]);
  expect((await fetch(model, { headers: { "if-none-match": etag } })).status).toBe(304);

  await server?.close();
  const plain = await start({ ranges: false });
  const whole = await fetch(`${plain.url}/m/my%20model.gguf`, { headers: { range: "bytes=2-4" } });
  expect([whole.status, whole.headers.get("accept-ranges"), await whole.text()]).toEqual([
    200,
    null,
    digits,
  ]);
});

test("a path cannot leave its folder", async () => {
  const { port } = await start();
  // fetch would tidy these paths up before sending them.
  const status = (path: string) =>
    new Promise((done, failed) => {
      request({ port, path }, (response) => done(response.resume().statusCode))
        .on("error", failed)
        .end();
    });
  for (const path of [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/sub/../../secret.txt",
  ]) {
    expect(await status(path), path).toBe(404);
  }
  expect(await status("/%")).toBe(400);
  expect(await status("/a%00b")).toBe(400);
});

test("a taken port is an error that says so", async () => {
  const { port } = await start();
  await expect(startServer({ port })).rejects.toThrow(`Port ${port} is in use.`);
});

test.each([
  ["bytes=0-", { start: 0, end: 9 }],
  ["bytes=-3", { start: 7, end: 9 }],
  ["bytes=-30", { start: 0, end: 9 }],
  ["bytes=5-99", { start: 5, end: 9 }],
  ["bytes=10-12", "outside"],
  ["bytes=-0", "outside"],
  ["bytes=4-2", undefined],
  ["bytes=1-2,4-5", undefined],
  ["lines=1-2", undefined],
  ["bytes=-", undefined],
  [undefined, undefined],
])("range %s of 10 bytes", (header, expected) => {
  expect(parseRange(header, 10)).toEqual(expected);
});
