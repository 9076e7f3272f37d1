import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
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
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { withLock } from "./lock.mjs";
import { inRoot } from "./paths.mjs";

let folder: string;
let lock: string;
let said: string;
let child: ChildProcess | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-lock-"));
  lock = join(folder, "locks/work");
  said = "";
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    said += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  child?.kill("SIGKILL");
  child = undefined;
  rmSync(folder, { recursive: true });
});

/** A process that holds the lock until it is told to go on, by its input. */
async function holdElsewhere(): Promise<ChildProcess> {
  const code = `
    const { withLock } = await import(${JSON.stringify(inRoot("scripts/lib/lock.mjs"))});
    await withLock(${JSON.stringify(lock)}, "waits", async () => {
      console.log("held");
      await new Promise((done) => process.stdin.once("data", done));
    });
    process.exit();`;
  child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await new Promise((done) => child!.stdout!.once("data", done));
  return child;
}

/** A lock whose holder did not release it. */
function leaveLock(pid: number, ageMs = 0): void {
  const file = join(lock, String(pid));
  mkdirSync(lock, { recursive: true });
  writeFileSync(file, "");
  const then = new Date(Date.now() - ageMs);
  utimesSync(file, then, then);
}

test("one at a time in one process, also after work that failed", async () => {
  const order: string[] = [];
  const work = (name: string) => async () => {
    order.push(`${name} starts`);
    await new Promise((done) => setTimeout(done, 20));
    order.push(`${name} ends`);
    if (name === "a") throw new Error("a failed");
  };
  const results = await Promise.allSettled(
    ["a", "b"].map((name) => withLock(lock, "works", work(name))),
  );
  expect(order).toEqual(["a starts", "a ends", "b starts", "b ends"]);
  expect(results.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
  expect(readdirSync(join(folder, "locks"))).toEqual([]);
});

test("waits for another process and says so", async () => {
  const other = await holdElsewhere();
  let isDone = false;
  const waiting = withLock(lock, "works", async () => {
    isDone = true;
  });
  await new Promise((done) => setTimeout(done, 500));
  expect(isDone).toBe(false);
  expect(said).toBe(`Waiting for another command (process ${other.pid}) that works.\n`);
  other.stdin!.write("go on\n");
  await waiting;
});

test("a killed process loses the lock", async () => {
  const other = await holdElsewhere();
  const waiting = withLock(lock, "works", async () => "done");
  other.kill("SIGKILL");
  expect(await waiting).toBe("done");
  expect(existsSync(lock)).toBe(false);
});

test("takes over what a dead process left, without a word", async () => {
  leaveLock(spawnSync(process.execPath, ["--version"]).pid);
  expect(await withLock(lock, "works", async () => readdirSync(lock))).toEqual([`${process.pid}`]);
  // This process's own number, from before it started.
  leaveLock(process.pid);
  expect(await withLock(lock, "works", async () => "done")).toBe("done");
  expect(said).toBe("");
});

test("a living process that has long been silent is another one by the same number", async () => {
  leaveLock(process.ppid, 10 * 60_000);
  expect(await withLock(lock, "works", async () => "done")).toBe("done");
});

test("of many processes that find a dead one's lock one at a time takes it", async () => {
  const [log, go] = [join(folder, "log"), join(folder, "go")];
  const dead = spawnSync(process.execPath, ["--version"]).pid;
  const code = `
    import { appendFileSync, existsSync } from "node:fs";
    const { withLock } = await import(${JSON.stringify(inRoot("scripts/lib/lock.mjs"))});
    console.log("ready");
    while (!existsSync(${JSON.stringify(go)}));
    await withLock(${JSON.stringify(lock)}, "works", async () => {
      appendFileSync(${JSON.stringify(log)}, "in ");
      await new Promise((done) => setTimeout(done, 20));
      appendFileSync(${JSON.stringify(log)}, "out ");
    });`;
  const all = Array.from({ length: 6 }, () => {
    const one = spawn(process.execPath, ["--input-type=module", "-e", code], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    return {
      ready: new Promise((done) => one.stdout.once("data", done)),
      ended: new Promise((done) => one.once("close", done)),
    };
  });
  await Promise.all(all.map(({ ready }) => ready));
  leaveLock(dead);
  writeFileSync(go, "");
  expect(await Promise.all(all.map(({ ended }) => ended))).toEqual(Array(6).fill(0));
  expect(readFileSync(log, "utf8").trim()).toBe(Array(6).fill("in out").join(" "));
});
