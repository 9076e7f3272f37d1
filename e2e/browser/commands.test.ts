import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { ensureDemo } from "../../scripts/lib/build.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { makeParrotModel } from "../fixtures/parrotModel.ts";

// The commands as a user starts them: what they print, how they end, and that nothing of them stays.

/** Two texts that answers are made of without end. */
const TEXTS = ["polly wants ", "a cracker\n"] as const;
const CONTEXT = { short: 512, long: 16_384 };

let folder: string;
let running: ChildProcess | undefined;
const models = { short: "", long: "" };
let sha256: string;

beforeAll(async () => {
  await ensureDemo();
  folder = mkdtempSync(join(tmpdir(), "quire-commands-"));
  mkdirSync(join(folder, "tmp"));
  for (const length of ["short", "long"] as const) {
    const bytes = await makeParrotModel(TEXTS, { contextLength: CONTEXT[length] });
    models[length] = join(folder, `${length} parrot.gguf`);
    writeFileSync(models[length], bytes);
    if (length === "short") sha256 = createHash("sha256").update(bytes).digest("hex");
  }
});

afterEach(() => {
  running?.kill("SIGKILL");
  running = undefined;
});
afterAll(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  stdout = "";
  stderr = "";

  /** Node with these arguments. Its temporary files go to a folder of their own. */
  constructor(args: readonly string[]) {
    const env = { ...process.env, TMPDIR: join(folder, "tmp") };
    const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
    this.child = child;
    this.ended = new Promise((done) => child.once("close", done));
    running = child;
  }

  async printed(stream: "stdout" | "stderr", text: RegExp): Promise<void> {
    const found = () => expect(this[stream]).toMatch(text);
    const early = this.ended.then((code) => {
      found();
      return code;
    });
    await Promise.race([vi.waitFor(found, 120_000), early]);
  }

  /** The one object that `--json` promises, alone on standard output. */
  get json(): Record<string, unknown> {
    expect(this.stdout.trim().split("\n"), this.stderr).toHaveLength(1);
    return JSON.parse(this.stdout);
  }
}

function command(name: "ask" | "start", ...args: string[]): Running {
  return new Running([inRoot(`scripts/${name}.mjs`), ...args]);
}

function ask(model: keyof typeof models, ...args: string[]): Running {
  const flags = ["--backend", "wasm", "--json", "--model", models[model]];
  return command("ask", ...flags, ...args);
}

/** What the commands made in the temporary folder and did not remove. */
function leftFolders(): string[] {
  return readdirSync(join(folder, "tmp")).filter((name) => /^(quire|playwright)/.test(name));
}

/** Processes whose command line names the temporary folder: the browsers. Linux only. */
function leftProcesses(): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      return line.includes(join(folder, "tmp")) ? [line.replaceAll("\0", " ")] : [];
    } catch {
      return []; // it has ended meanwhile
    }
  });
}

async function expectNothingLeft(): Promise<void> {
  expect(leftFolders()).toEqual([]);
  await vi.waitFor(() => expect(leftProcesses()).toEqual([]), 10_000);
}

const RESULT_FIELDS = [
  "text",
  "tokens",
  "promptTokens",
  "cachedTokens",
  "completionTokens",
  "finishReason",
  "timeToFirstTokenMs",
  "durationMs",
];

describe("ask", () => {
  it("prints an object with every field of an answer, and answers to all samples of all prompts", async () => {
    const asked = ask(
      "short",
      "Hello",
      "And you?",
      "--n",
      "2",
      "--max-tokens",
      "5",
      "--threads",
      "1",
    );
    expect(await asked.ended, asked.stderr).toBe(0);
    const { results, ...about } = asked.json as {
      results: readonly Record<string, unknown>[];
    } & Record<string, unknown>;
    expect(about).toEqual({
      backend: "wasm",
      precision: "fast",
      kv: "f16",
      threads: 1,
      model: { file: "short parrot.gguf", sha256, architecture: "llama" },
      adapter: null,
      tokensPerSecond: expect.any(Number),
      steps: expect.any(Number),
      preemptions: 0,
      kvBlocksPeak: expect.any(Number),
      kvBlocksTotal: expect.any(Number),
    });
    expect(about["tokensPerSecond"]).toBeGreaterThan(0);
    expect(about["steps"]).toBeGreaterThanOrEqual(5);
    expect(about["kvBlocksPeak"]).toBeGreaterThan(0);
    expect(about["kvBlocksPeak"]).toBeLessThanOrEqual(about["kvBlocksTotal"] as number);
    expect(results).toHaveLength(4);
    for (const result of results) {
      expect(Object.keys(result).sort()).toEqual([...RESULT_FIELDS].sort());
      expect(result["text"]).toMatch(/^(polly wants |a cracker\n){5}$/);
      expect(result["tokens"]).toHaveLength(5);
      expect(result).toMatchObject({ completionTokens: 5, finishReason: "length" });
      expect(result["promptTokens"]).toBeGreaterThan(5);
      expect(result["durationMs"]).toBeGreaterThanOrEqual(result["timeToFirstTokenMs"] as number);
    }
    expect(results[0]!["promptTokens"]).not.toBe(results[2]!["promptTokens"]);
    await expectNothingLeft();
  });

  it("a conversation that fails is an error in its entry and exit code 1, the others are answered", async () => {
    const chats = ["Hello", "Too long. ".repeat(CONTEXT.short)].map((content) => [
      { role: "user", content },
    ]);
    writeFileSync(join(folder, "chats.json"), JSON.stringify(chats));
    const asked = ask("short", "--messages", join(folder, "chats.json"), "--max-tokens", "3");
    expect(await asked.ended, asked.stderr).toBe(1);
    expect(asked.json).toMatchObject({
      backend: "wasm",
      results: [
        { completionTokens: 3, finishReason: "length" },
        {
          text: "",
          tokens: [],
          finishReason: "error",
          error: { code: "context-overflow", message: expect.any(String) },
        },
      ],
    });
  });

  it("what stops everything is an object too", async () => {
    const broken = join(folder, "broken.gguf");
    writeFileSync(broken, "This is no model.");
    const asked = command("ask", "Hello", "--json", "--backend", "wasm", "--model", broken);
    expect(await asked.ended, asked.stderr).toBe(1);
    expect(asked.json).toEqual({ error: { code: "gguf-invalid", message: expect.any(String) } });
  });

  it("an unknown flag ends it with 2 and names the valid ones", async () => {
    const asked = ask("short", "Hello", "--warm");
    expect(await asked.ended).toBe(2);
    expect(asked.stderr).toMatch(/Unknown flag --warm\. Valid flags: --messages, /);
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)(
    "%s in mid-answer ends it with %i, the answer so far and nothing left",
    async (signal, code) => {
      const asked = ask("long", "Hello", "--max-tokens", "16000");
      await asked.printed("stderr", /polly|cracker/);
      asked.child.kill(signal);
      expect(await asked.ended, asked.stderr).toBe(code);
      expect(asked.json["results"]).toMatchObject([
        {
          text: expect.stringMatching(/polly|cracker/),
          finishReason: "abort",
          error: { code: "aborted" },
        },
      ]);
      await expectNothingLeft();
    },
  );
});

it("a signal closes the browser of a command that does nothing about signals", async () => {
  const code = `
    const { openPage } = await import(${JSON.stringify(inRoot("scripts/lib/browsers.mjs"))});
    const { runMain } = await import(${JSON.stringify(inRoot("scripts/lib/errors.mjs"))});
    await runMain(async () => {
      const { page } = await openPage({ name: "chromium", url: "about:blank", adapter: "none" });
      console.log("open");
      await page.waitForTimeout(600_000);
    });`;
  const waiting = new Running(["--input-type=module", "-e", code]);
  await waiting.printed("stdout", /open/);
  expect(leftFolders()).not.toEqual([]);
  expect(leftProcesses()).not.toEqual([]);
  waiting.child.kill("SIGTERM");
  expect(await waiting.ended).toBe(143);
  await expectNothingLeft();
});

it("start serves the demo and the model on a free port, until SIGTERM", async () => {
  const started = command("start", "--port", "0", "--model", models.short);
  await started.printed("stdout", /is at http:\/\/127\.0\.0\.1:\d+\/ /);
  const url = /http:\S+/.exec(started.stdout)![0];
  const page = await fetch(url);
  expect(page.status).toBe(200);
  expect(page.headers.get("cross-origin-embedder-policy")).toBe("require-corp");
  expect(await page.text()).toContain("<script");
  const { model } = await (await fetch(`${url}quire.json`)).json();
  expect(model.name).toBe("short parrot.gguf");
  // Another file of this name would have another URL, by which the page keeps it.
  expect(model.url).toMatch(/^\/models\/[0-9a-f]{12}\/short%20parrot\.gguf$/);
  const range = await fetch(new URL(model.url, url), { headers: { range: "bytes=0-3" } });
  expect(range.status).toBe(206);
  expect(await range.text()).toBe("GGUF");
  started.child.kill("SIGTERM");
  expect(await started.ended).toBe(0);
  await expect(fetch(url)).rejects.toThrow();
});
