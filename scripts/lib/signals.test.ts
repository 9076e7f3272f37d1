import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import { inRoot } from "./paths.mjs";

type Ending = { code: number | null; signal: NodeJS.Signals | null; output: string };

/** Runs a module with the functions of signals.mjs in scope, and sends a signal at each "ready" it prints. */
function runUntil(signal: NodeJS.Signals, body: string): Promise<Ending> {
  const code = `
    const { beforeEnd, isEnding, takeSignals } = await import(${JSON.stringify(inRoot("scripts/lib/signals.mjs"))});
    const say = (text) => process.stdout.write(text + " ");
    setTimeout(() => {}, 60_000);
    ${body}`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (text.includes("ready")) child.kill(signal);
  });
  return new Promise((done) => {
    child.on("close", (code, signal) => done({ code, signal, output: output.trim() }));
  });
}

const CLOSE = `beforeEnd(async (signal) => {
  await new Promise((done) => setTimeout(done, 50));
  say("closed at " + signal);
});`;

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const)("%s waits for what is to be done first, and ends with %i", async (signal, code) => {
  const output = `ready closed at ${signal}`;
  expect(await runUntil(signal, `${CLOSE} say("ready");`)).toEqual({ code, signal: null, output });
});

test("a duty that fails or that was taken back keeps nobody from ending", async () => {
  const body = `
    ${CLOSE}
    beforeEnd(() => { throw new Error("The browser has gone."); });
    beforeEnd(() => say("never"))();
    say("ready");`;
  const output = "ready closed at SIGTERM";
  expect(await runUntil("SIGTERM", body)).toEqual({ code: 143, signal: null, output });
});

test("a duty that hangs is given up", async () => {
  const body = 'beforeEnd(() => new Promise(() => {})); say("ready");';
  expect(await runUntil("SIGINT", body)).toMatchObject({ code: 130 });
});

test("who takes the signals decides, until it gives them back", async () => {
  const body = `
    ${CLOSE}
    const giveBack = takeSignals((signal) => {
      say("taken " + isEnding());
      giveBack();
      say("ready");
    });
    say("ready");`;
  const output = "ready taken false ready closed at SIGINT";
  expect(await runUntil("SIGINT", body)).toEqual({ code: 130, signal: null, output });
});

test("where nothing is to be done a signal keeps its effect", async () => {
  const body = 'beforeEnd(() => {})(); say("ready");';
  expect(await runUntil("SIGTERM", body)).toMatchObject({ code: null, signal: "SIGTERM" });
});
