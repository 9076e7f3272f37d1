import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Browser } from "playwright";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureLibrary } from "../../scripts/lib/build.mjs";
import { inRoot, root } from "../../scripts/lib/paths.mjs";
import { makeTinyModel } from "../fixtures/tinyModel.ts";
import { openChromium, openPageAt, openSite, type Site } from "./site.ts";

// Every form of the package is used once as a stranger would use it: from the packed tarball, in a
// project that knows nothing of this repository.

const model = makeTinyModel({ layers: 1 });
/** Completes eight tokens on each back end and leaves the outcomes in `window.outcomes`. */
const RUN = `
  async function run(createEngine, makeOptions, backends = ["webgpu", "wasm"]) {
    const outcomes = {};
    for (const backend of backends) {
      const threads = backend === "wasm" ? { threads: 2 } : {};
      outcomes[backend] = await attempt(createEngine, { backend, ...threads, ...makeOptions() });
    }
    window.outcomes = outcomes;
  }
  async function attempt(createEngine, options) {
    try {
      const engine = await createEngine({ model: new URL("/tiny.gguf", location.href), ...options });
      const messages = [{ role: "user", content: "Hello" }];
      const params = { messages, max_tokens: 8, temperature: 0, ignore_eos: true };
      const { choices, usage } = await engine.chat.completions.create(params);
      await engine.dispose();
      const { backend, threads } = engine;
      return { backend, threads, usage, text: choices[0].message.content };
    } catch (error) {
      return { name: error.name, code: error.code, message: error.message };
    }
  }
`;
const page = (body: string): string =>
  `<!doctype html><meta charset="utf-8"><title>quire</title><link rel="icon" href="data:,">${body}`;

let folder: string;
let browser: Browser;
let closeBrowser: () => Promise<void>;

beforeAll(async () => {
  await ensureLibrary();
  folder = mkdtempSync(join(tmpdir(), "quire-consumer-"));
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const [{ filename }] = JSON.parse(npm(pack, root)) as [{ filename: string }];
  write("package.json", JSON.stringify({ name: "consumer", private: true, type: "module" }));
  npm(["install", "--offline", "--no-audit", "--no-fund", join(folder, filename)], folder);
  ({ browser, close: closeBrowser } = await openChromium());
});

afterAll(async () => {
  await closeBrowser?.();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

function npm(args: readonly string[], cwd: string): string {
  return execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

function write(path: string, text: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), text);
}

/** Runs a program of this repository's node_modules in the consumer's folder. */
function tool(path: string, args: readonly string[]): string {
  const program = inRoot(`node_modules/${path}`);
  try {
    return execFileSync(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8" });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${path} ${args.join(" ")} failed:\n${stdout}${stderr}`);
  }
}

const packed = (file: string): string => join(folder, "node_modules/quire/dist", file);

interface Outcome {
  readonly backend?: string;
  readonly threads?: number;
  readonly text?: string;
  readonly usage?: { readonly completion_tokens: number };
  readonly code?: string;
  readonly message?: string;
}

/** By back end. */
type Outcomes = Readonly<Record<string, Outcome>>;

async function outcomesAt(site: Site, path = "/"): Promise<Outcomes> {
  const { page: opened, problems } = await openPageAt(browser, site.url + path);
  try {
    await opened.waitForFunction(() => "outcomes" in globalThis, undefined, { timeout: 120_000 });
  } catch (cause) {
    throw new Error(`${path} came to no outcome. ${problems.join("\n")}`, { cause });
  }
  const outcomes = await opened.evaluate(() => (globalThis as { outcomes?: unknown }).outcomes);
  await opened.context().close();
  return outcomes as Outcomes;
}

/** @param threads of WASM */
function expectCompletions(outcomes: Outcomes, threads: number): void {
  const usage = { completion_tokens: 8 };
  expect(outcomes["webgpu"]).toMatchObject({ backend: "webgpu", threads: 1, usage });
  expect(outcomes["wasm"]).toMatchObject({ backend: "wasm", threads, usage });
}

describe("the packed tarball", () => {
  it("works in an empty vite project, the worker inlined and as a file of its own", async () => {
    const main = (options: string): string =>
      `import { createEngine } from "quire";\n${RUN}\nrun(createEngine, ${options});\n`;
    write("app/inlined.js", main("() => ({})"));
    write(
      "app/file.js",
      `import workerUrl from "quire/worker?url";\n${main("() => ({ worker: workerUrl })")}`,
    );
    write(
      "app/url.js",
      main(
        `() => ({ worker: () => new Worker(new URL("quire/worker", import.meta.url), { type: "module" }) })`,
      ),
    );
    const names = ["inlined", "file", "url"];
    for (const name of names) {
      write(`app/${name}.html`, page(`<script type="module" src="./${name}.js"></script>`));
    }
    const input = Object.fromEntries(names.map((name) => [name, `app/${name}.html`]));
    const config = {
      root: "app",
      build: { outDir: "../built", emptyOutDir: true, rolldownOptions: { input } },
    };
    write("vite.config.js", `export default ${JSON.stringify(config)};\n`);
    tool("vite/bin/vite.js", ["build", "--logLevel", "warn"]);
    const folders = { "/": join(folder, "built") };
    const site = await openSite({}, { folders, files: { "/tiny.gguf": tinyFile() } });
    try {
      const outcomes = [];
      for (const name of names) outcomes.push(await outcomesAt(site, `/${name}.html`));
      for (const outcome of outcomes) expectCompletions(outcome, 2);
      for (const backend of ["webgpu", "wasm"]) {
        expect(new Set(outcomes.map((outcome) => outcome[backend]?.text)).size).toBe(1);
      }
    } finally {
      await site.close();
    }
  });

  it("works from a script tag", async () => {
    const body = `<script src="/global.js"></script><script>${RUN} run(Quire.createEngine, () => ({}));</script>`;
    const site = await openSite(
      { "index.html": page(body), "tiny.gguf": model },
      // Without COOP and COEP, as most plain pages are.
      { files: { "/global.js": packed("global.js") }, isolated: false },
    );
    try {
      expectCompletions(await outcomesAt(site), 1);
    } finally {
      await site.close();
    }
  });

  it("works under a strict Content-Security-Policy with the worker's file, and says so without", async () => {
    const start = (options: string): string =>
      `import { createEngine } from "/index.js";\n${RUN}\nrun(createEngine, ${options});\n`;
    const site = await openSite(
      {
        "with.html": page('<script type="module" src="/with.js"></script>'),
        "with.js": start('() => ({ worker: "/worker.js" })'),
        "classic.html": page('<script type="module" src="/classic.js"></script>'),
        "classic.js": start('() => ({ worker: new Worker("/worker.js") })'),
        "without.html": page('<script type="module" src="/without.js"></script>'),
        "without.js": start('() => ({ workerTimeoutMs: 20000 }), ["wasm"]'),
        "missing.html": page('<script type="module" src="/missing.js"></script>'),
        "missing.js": start('() => ({ worker: "/nowhere.js" }), ["wasm"]'),
        "tiny.gguf": model,
      },
      {
        files: { "/index.js": packed("index.js"), "/worker.js": packed("worker.js") },
        headers: {
          "content-security-policy":
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src data:",
        },
      },
    );
    try {
      expectCompletions(await outcomesAt(site, "/with.html"), 2);
      expectCompletions(await outcomesAt(site, "/classic.html"), 1);
      const { wasm: blocked } = await outcomesAt(site, "/without.html");
      expect(blocked).toMatchObject({ code: "worker-failed" });
      expect(blocked!.message).toContain("worker-src blob:");
      const { wasm: missing } = await outcomesAt(site, "/missing.html");
      expect(missing).toMatchObject({ code: "worker-failed" });
      expect(missing!.message).toContain("not found");
    } finally {
      await site.close();
    }
  });

  it("can be imported in Node, where it touches nothing of the browser", () => {
    const script = `
      const touched = [];
      for (const name of ["navigator", "window", "document", "Worker", "MessageChannel"]) {
        Object.defineProperty(globalThis, name, { configurable: true, get() { touched.push(name); } });
      }
      const quire = await import("quire");
      if (touched.length > 0) throw new Error("import touched " + touched.join(", "));
      const { ok, reasons } = await quire.checkSupport();
      console.log(JSON.stringify({ names: Object.keys(quire).sort(), ok, code: reasons[0].code }));
    `;
    const args = ["--input-type=module", "-e", script];
    const output = execFileSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
    expect(JSON.parse(output)).toEqual({
      names: ["QuireError", "checkSupport", "createEngine", "deleteModel", "listModels"],
      ok: false,
      code: "webgpu-unavailable",
    });
  });

  it("has types that need no others", () => {
    write(
      "types/use.ts",
      `import { createEngine, checkSupport, QuireError, type QuireEngine, type Support } from "quire";
       import "quire/worker";
       export async function use(file: File): Promise<string> {
         const support: Support = await checkSupport();
         if (!support.ok) throw new QuireError("webgpu-unavailable", support.reasons[0]!.message);
         await using engine: QuireEngine = await createEngine({ model: file, blockSize: 16 });
         const stream = await engine.chat.completions.create({
           messages: [{ role: "user", content: "Hi" }], stream: true,
         });
         for await (const chunk of stream) console.log(chunk.choices[0]?.delta.content);
         const whole = await engine.chat.completions.create({
           messages: [{ role: "user", content: "Hi" }], max_tokens: 5,
         });
         // @ts-expect-error a whole completion is no stream
         whole.toReadableStream();
         // @ts-expect-error not a block size
         await createEngine({ model: file, blockSize: 12 });
         const maybe = await engine.completions.create({ prompt: "x", stream: Math.random() < 0.5 });
         if ("choices" in maybe) console.log(maybe.choices[0]!.text);
         const { kv } = await engine.stats();
         return whole.choices[0]!.message.content + kv.blocksUsed;
       }
       export const global: typeof Quire.createEngine = createEngine;
       import "quire/global.js";\n`,
    );
    const tsc = (module: string, moduleResolution: string): string => {
      const compilerOptions = {
        ...{ noEmit: true, strict: true, skipLibCheck: false, types: [], target: "es2022" },
        ...{ lib: ["es2022", "dom", "dom.asynciterable"], module, moduleResolution },
      };
      write("types/tsconfig.json", JSON.stringify({ compilerOptions, files: ["use.ts"] }));
      return tool("typescript/bin/tsc", ["-p", "types"]);
    };
    expect(tsc("esnext", "bundler")).toBe("");
    expect(tsc("nodenext", "nodenext")).toBe("");
  });

  it("looks for no file beside it and keeps no import", () => {
    for (const file of ["index.js", "worker.js", "global.js"]) {
      const text = readFileSync(packed(file), "utf8");
      expect(text).not.toContain("import.meta");
      expect(text).not.toMatch(/(^|[;}\n])import[\s{*"']/);
    }
    expect(readFileSync(packed("worker.js"), "utf8")).not.toMatch(/(^|[;}\n])export[\s{*]/);
  });
});

/** The model as a file, for a site that has no folder of its own. */
function tinyFile(): string {
  writeFileSync(join(folder, "tiny.gguf"), model);
  return join(folder, "tiny.gguf");
}
