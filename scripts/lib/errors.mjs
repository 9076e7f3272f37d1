import { isEnding } from "./signals.mjs";

/** The command line is wrong: exit code 2. The message names what is valid. */
export class UsageError extends Error {
  code = "usage";
}

/** A command cannot go on: exit code 1. The message says what to do. */
export class SetupError extends Error {
  /**
   * @param {string} code a short stable word, for `--json`
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Runs a command's main function and turns its errors into messages and exit codes.
 * @param {() => Promise<number | void>} main resolves to the exit code (nothing = 0)
 */
export async function runMain(main) {
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    // A signal took away what the command was using; it ends the process in a moment.
    if (isEnding()) return;
    if (error instanceof UsageError || error instanceof SetupError) {
      process.stderr.write(`${error.message}\n`);
      process.exitCode = error instanceof UsageError ? 2 : 1;
    } else {
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
      process.exitCode = 1;
    }
  }
}

/** An error's message and its cause's. @param {unknown} error */
export function messageOf(error) {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}
