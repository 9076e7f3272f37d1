import {
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { say } from "./progress.mjs";

const POLL_MS = 200;
/** How often a holder shows that it is alive. */
const BEAT_MS = 5000;
/** One that was silent for so long has ended, whoever has its process id now. */
const SILENT_MS = 60_000;

/** What the file system answers where another process was first. */
const LOST_RACE = new Set(["ENOENT", "EEXIST", "ENOTEMPTY", "EPERM"]);

/** Folders of the locks that this process holds. @type {Set<string>} */
const held = new Set();

/**
 * Runs `work` while nobody else on this machine runs work under the same lock. The lock is a folder
 * with one file in it, named after the process that holds it; that of a process that has ended is
 * taken over.
 * @template T
 * @param {string} folder
 * @param {string} what the other command does meanwhile, such as "builds the library"
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(folder, what, work) {
  mkdirSync(dirname(folder), { recursive: true });
  for (let told = ""; !take(folder); await sleep(POLL_MS)) {
    const holder = readHolder(folder);
    if (told !== "" || holder === undefined) continue;
    say(`Waiting for another command (process ${holder}) that ${what}.`);
    told = holder;
  }
  held.add(folder);
  const own = ownFile(folder);
  const beat = setInterval(() => touch(own), BEAT_MS).unref();
  const release = () => {
    clearInterval(beat);
    process.off("exit", release);
    held.delete(folder);
    rmSync(own, { force: true });
    attempt(() => rmdirSync(folder));
  };
  process.on("exit", release);
  try {
    return await work();
  } finally {
    release();
  }
}

/** @param {string} folder */
function ownFile(folder) {
  return join(folder, String(process.pid));
}

/** Takes a lock if it is free, or if its holder has ended. @param {string} folder */
function take(folder) {
  // A folder can be renamed to where none is, or to an empty one, but not to one with a file in it:
  // taking a free lock is one step.
  const ready = `${folder}.${process.pid}`;
  mkdirSync(ready, { recursive: true });
  writeFileSync(join(ready, String(process.pid)), "");
  if (attempt(() => renameSync(ready, folder))) return true;
  rmSync(ready, { recursive: true });
  const holder = readHolder(folder);
  if (holder === undefined) {
    attempt(() => rmdirSync(folder)); // Windows renames to no folder at all
    return false;
  }
  if (!hasEnded(folder, holder)) return false;
  // Of several who find that the holder has ended, one can rename its file.
  const file = join(folder, holder);
  return touch(file) && attempt(() => renameSync(file, ownFile(folder)));
}

/** Who holds a lock: a process id, undefined where it has just been released. @param {string} folder */
function readHolder(folder) {
  /** @type {string | undefined} */
  let holder;
  attempt(() => {
    holder = readdirSync(folder)[0];
  });
  return holder;
}

/** @param {string} folder @param {string} holder */
function hasEnded(folder, holder) {
  const pid = Number(holder);
  if (pid === process.pid) return !held.has(folder);
  let isSilent = false;
  attempt(() => {
    isSilent = Date.now() - statSync(join(folder, holder)).mtimeMs > SILENT_MS;
  });
  return isSilent || !isAlive(pid);
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code !== "ESRCH";
  }
}

/** @param {string} file */
function touch(file) {
  const now = new Date();
  return attempt(() => utimesSync(file, now, now));
}

/** Whether a change to a lock went through: false where another process was first. @param {() => void} action */
function attempt(action) {
  try {
    action();
    return true;
  } catch (error) {
    if (!LOST_RACE.has(/** @type {NodeJS.ErrnoException} */ (error).code ?? "")) throw error;
    return false;
  }
}
