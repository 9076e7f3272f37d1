import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { root } from "./paths.mjs";
import { beforeEnd } from "./signals.mjs";

/**
 * Runs a program in the repository's root with no standard input. What it prints goes to standard
 * error, so that a command's own standard output stays clean. A signal that ends this process ends
 * the program too.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, cwd?: string, stdout?: "stderr" | "inherit" }} [options]
 * @returns {Promise<number>} the exit code; 128 where a signal ended it
 */
export function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd ?? root,
      env: options.env ?? process.env,
      stdio: ["ignore", options.stdout === "inherit" ? "inherit" : 2, 2],
    });
    const closed = new Promise((done) => child.once("close", done));
    const forget = beforeEnd(() => {
      child.kill();
      return closed;
    });
    child.on("error", (error) => {
      forget();
      reject(error);
    });
    child.on("close", (code) => {
      forget();
      resolve(code ?? 128);
    });
  });
}

/**
 * Runs a program and collects what it prints.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ code: number, output: string, stdout: string }>} `output` has both streams
 */
export function capture(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd ?? root,
      env: options.env ?? process.env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 128, output, stdout }));
  });
}

/** Whether a program starts and exits with 0. @param {string} program @param {readonly string[]} args */
export function works(program, args) {
  return spawnSync(program, args, { stdio: "ignore" }).status === 0;
}

/** @param {string} path */
export function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * The first of these programs that is on the PATH.
 * @param {readonly string[]} names
 * @returns {string | undefined} absolute path
 */
export function findOnPath(names) {
  const folders = (process.env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  for (const name of names) {
    for (const folder of folders) {
      const path = join(folder, name);
      if (isExecutable(path)) return path;
    }
  }
  return undefined;
}

/** A program of the installed packages. @param {string} name */
export function packageBin(name) {
  return join(root, "node_modules", ".bin", name);
}
