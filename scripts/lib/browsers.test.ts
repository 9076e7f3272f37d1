import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { describeAdapter, swiftshaderIcd } from "./browsers.mjs";
import { inRoot } from "./paths.mjs";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-browsers-"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

test("a software adapter is never called a GPU", () => {
  const adapter = { vendor: "", architecture: "", description: "", isFallback: true };
  expect(describeAdapter(adapter)).toBe("software adapter (unnamed), no GPU");
  expect(describeAdapter({ ...adapter, vendor: "acme", isFallback: false })).toBe("GPU (acme)");
  expect(describeAdapter(null)).toBe("no adapter");
});

describe("a Chromium outside the usual folders", () => {
  let program: string;
  let icd: string;
  beforeEach(() => {
    mkdirSync(join(folder, "chromium"));
    program = join(folder, "chromium/chrome");
    icd = join(folder, "chromium/vk_swiftshader_icd.json");
    writeFileSync(program, "");
    writeFileSync(icd, "{}");
  });

  test("has its driver beside it, also where the PATH has a link to it", () => {
    symlinkSync(program, join(folder, "chromium-link"));
    expect(swiftshaderIcd(program)).toBe(icd);
    expect(swiftshaderIcd(join(folder, "chromium-link"))).toBe(icd);
  });

  test("runs the GPU tests when CHROME_PATH names it", async () => {
    vi.stubEnv("CHROME_PATH", program);
    const { default: config } = await import("../../vitest.config.ts");
    expect(await config({ command: "serve", mode: "test" })).toMatchObject({
      test: {
        projects: expect.arrayContaining([
          expect.objectContaining({
            test: expect.objectContaining({
              name: "gpu:swiftshader",
              env: { QUIRE_ICD: "swiftshader", VK_ICD_FILENAMES: icd, VK_DRIVER_FILES: icd },
            }),
          }),
        ]),
      },
    });
  });
});

test.each(["chromium", "firefox"])(
  "a signal while %s is starting leaves neither a process nor a folder",
  async (name) => {
    // A browser that never answers, and writes down which process it is.
    const program = join(folder, "browser");
    const pidFile = join(folder, "pid");
    writeFileSync(
      program,
      `#!/bin/sh\necho $$ > "${pidFile}.new"\nmv "${pidFile}.new" "${pidFile}"\nexec sleep 60\n`,
    );
    chmodSync(program, 0o755);
    mkdirSync(join(folder, "tmp"));
    const code = `
      const { launchBrowser } = await import(${JSON.stringify(inRoot("scripts/lib/browsers.mjs"))});
      await launchBrowser(${JSON.stringify(name)}, ${JSON.stringify(program)}, undefined);`;
    const command = spawn(process.execPath, ["--input-type=module", "-e", code], {
      env: { ...process.env, TMPDIR: join(folder, "tmp") },
      stdio: "ignore",
    });
    const ended = new Promise((done) => command.once("close", done));
    await vi.waitFor(() => expect(existsSync(pidFile)).toBe(true), 20_000);
    const pid = Number(readFileSync(pidFile, "utf8"));
    expect(readdirSync(join(folder, "tmp"))).not.toEqual([]);
    command.kill("SIGTERM");
    expect(await ended).toBe(143);
    expect(readdirSync(join(folder, "tmp"))).toEqual([]);
    // Whoever collects orphans may take its time.
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow("ESRCH"), 20_000);
  },
);
