import { closeSync, existsSync, openSync, rmSync, writeFileSync } from "node:fs";
import { UsageError } from "../lib/errors.mjs";
import { userPath } from "../lib/paths.mjs";

/**
 * The file that `--json` names. Opened before anything is measured: a UsageError says at once that it
 * cannot be written.
 * @param {string} file as the user named it
 * @returns {{ write(value: unknown): void, discard(): void }} `discard` leaves things as they were
 */
export function openResultFile(file) {
  const path = userPath(file);
  const isNew = !existsSync(path);
  try {
    closeSync(openSync(path, "a"));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UsageError(`--json ${file} cannot be written: ${reason}`);
  }
  return {
    write: (value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`),
    discard() {
      if (isNew) rmSync(path, { force: true });
    },
  };
}
