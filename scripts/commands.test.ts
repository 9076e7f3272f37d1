import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import ts from "typescript";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { inRoot } from "./lib/paths.mjs";

// What the commands do before they need a build or a browser; e2e/browser/commands.test.ts has the rest.

describe("a fresh clone", () => {
  const commands = readdirSync(inRoot("scripts")).filter((name) => name.endsWith(".mjs"));

  test.each(commands)("%s starts without packages: it imports none statically", (command) => {
    const seen = new Set<string>();
    const packages: string[] = [];
    const visit = (file: string): void => {
      if (seen.has(file)) return;
      seen.add(file);
      for (const specifier of staticImports(file)) {
        if (specifier.startsWith(".")) visit(resolve(file, "..", specifier));
        else if (!specifier.startsWith("node:")) packages.push(`${file}: ${specifier}`);
      }
    };
    visit(inRoot(`scripts/${command}`));
    expect(packages).toEqual([]);
  });
});

/** What must be there before a module can run. */
function staticImports(file: string): string[] {
  const source = ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest);
  return source.statements.flatMap((statement) => {
    if (!ts.isImportDeclaration(statement) && !ts.isExportDeclaration(statement)) return [];
    const name = statement.moduleSpecifier;
    return name !== undefined && ts.isStringLiteral(name) ? [name.text] : [];
  });
}

interface Ending {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let folder: string;
let child: ChildProcess | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-commands-"));
});
afterEach(() => {
  child?.kill("SIGKILL");
  child = undefined;
  rmSync(folder, { recursive: true });
});

function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  root = inRoot("."),
) {
  const started = spawn(process.execPath, [join(root, `scripts/${command}.mjs`), ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  child = started;
  let stdout = "";
  let stderr = "";
  started.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  started.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise<Ending>((done) => {
    started.on("close", (code) => done({ code, stdout, stderr }));
  });
}

describe("a command line that cannot be right", () => {
  test.each([
    ["ask", ["Hello", "--model", "http://"], /--model http:\/\/ is no URL/],
    ["ask", ["Hello", "--model", "https://x/%E0%A4%A"], /is no URL of a file \(URI malformed\)/],
    ["start", ["--model", "http://"], /--model http:\/\/ is no URL/],
    ["start", ["--model", "https://x/%E0%A4%A"], /is no URL of a file/],
    ["check", ["--fix"], /Unknown flag --fix\. There are no flags but --help\./],
    ["check", ["types"], /Unexpected argument "types"\. There are no flags but --help\./],
    ["setup", ["--all"], /Unknown flag --all\. There are no flags but --help\./],
    ["bench", ["decode", "--json", "none/out.json"], /--json none\/out\.json cannot be written/],
  ])("%s %j is a usage error", async (command, args, message) => {
    const { code, stdout, stderr } = await run(command, args);
    expect(stderr).toMatch(message);
    expect(stderr.trim().split("\n")).toHaveLength(1); // no stack
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  test("ask --json prints what stops everything as an object", async () => {
    const { code, stdout } = await run("ask", ["Hello", "--json", "--warm"]);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      error: { code: "usage", message: expect.stringContaining("Unknown flag --warm. Valid") },
    });
  });

  test.each(["ask", "start"])("%s misses a model file before it sets anything up", async (name) => {
    // A fresh clone, and without the programs that it would be set up with.
    for (const part of ["scripts", "package.json", "package-lock.json"]) {
      cpSync(inRoot(part), join(folder, part), { recursive: true });
    }
    const args = [...(name === "ask" ? ["Hello"] : []), "--model", "none.gguf"];
    const { code, stderr } = await run(name, args, { PATH: join(folder, "none") }, folder);
    expect(stderr).toBe(
      "--model none.gguf: there is no such file. It takes a GGUF file or its URL.\n",
    );
    expect(code).toBe(1);
  });
});

test("lab misses the browser of E20 before it simulates anything", async () => {
  const { code, stdout, stderr } = await run("lab", ["E1", "E20", "--json"], {
    CHROME_PATH: join(folder, "chrome"),
  });
  expect(stderr).toMatch(/^CHROME_PATH names .*, which is no program\.\n$/);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
});

describe("a signal before there is a browser", () => {
  let server: Server;
  let asked: Promise<void>;

  beforeEach(async () => {
    asked = new Promise((come) => {
      server = createServer((_request, response) => {
        response.writeHead(200, { "content-length": 1e6 });
        response.write("GGUF"); // and then nothing more
        come();
      });
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s ends ask with %i, its JSON and no half a file", async (signal, code) => {
    const { port } = server.address() as AddressInfo;
    const name = `signals-${process.pid}-${code}.gguf`;
    const ending = run("ask", ["Hello", "--json", "--model", `http://127.0.0.1:${port}/${name}`]);
    await asked;
    const found = () => readdirSync(inRoot("models")).filter((file) => file.includes(name));
    await vi.waitFor(() => expect(found()).toEqual([expect.stringMatching(/\.part$/)]), 10_000);
    child!.kill(signal);
    const ended = await ending;
    expect(ended.code).toBe(code);
    expect(JSON.parse(ended.stdout)).toEqual({
      error: { code: "aborted", message: `${signal} ended the command before there was a result.` },
    });
    expect(found()).toEqual([]);
  });
});
