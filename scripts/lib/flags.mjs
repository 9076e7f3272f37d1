import { UsageError } from "./errors.mjs";

/**
 * What one `--flag` takes.
 * @typedef {object} Flag
 * @property {"boolean" | "string" | "integer" | "number" | "choice"} type
 * @property {string} help one line for `--help`
 * @property {string} [value] name of the value in `--help`, such as `N`
 * @property {readonly string[]} [choices] for `choice`
 * @property {number} [min] smallest number allowed
 * @property {number} [max] largest number allowed
 * @property {boolean} [above] `min` itself is not allowed
 */

/**
 * @template {Flag} F
 * @typedef {F["type"] extends "boolean" ? boolean : F["type"] extends "integer" | "number" ? number | undefined : string | undefined} FlagValue
 */

/**
 * Reads a command line strictly: an unknown flag, a flag given twice, a missing or an unsupported
 * value is a UsageError that names what is valid. `--flag value` and `--flag=value` are the same;
 * after `--` everything is a positional.
 * @template {Record<string, Flag>} const F
 * @param {readonly string[]} argv
 * @param {F} flags
 * @param {{ positionals?: string }} [options] `positionals` names them; without it none is allowed
 * @returns {{ values: { [K in keyof F]: FlagValue<F[K]> }, positionals: string[], help: boolean }}
 */
export function parseFlags(argv, flags, options = {}) {
  /** @type {Record<string, string | number | boolean | undefined>} */
  const values = {};
  for (const [name, flag] of Object.entries(flags)) {
    values[name] = flag.type === "boolean" ? false : undefined;
  }
  /** @type {string[]} */
  const positionals = [];
  const seen = new Set();
  let help = false;
  for (let i = 0; i < argv.length; i++) {
    const argument = /** @type {string} */ (argv[i]);
    if (argument === "--") {
      positionals.push(...argv.slice(i + 1));
      break;
    }
    if (argument === "--help" || argument === "-h") {
      help = true;
      continue;
    }
    if (!/^--?[a-z]/i.test(argument)) {
      positionals.push(argument);
      continue;
    }
    const [, name = "", inline] = /^--([^=]*)(?:=([\s\S]*))?$/.exec(argument) ?? [];
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
    if (flag === undefined) {
      throw new UsageError(`Unknown flag ${argument}. ${flagNames(flags)}`);
    }
    if (seen.has(name)) throw new UsageError(`--${name} is given twice.`);
    seen.add(name);
    if (flag.type === "boolean") {
      if (inline !== undefined) throw new UsageError(`--${name} takes no value.`);
      values[name] = true;
      continue;
    }
    let text = inline;
    if (text === undefined) {
      text = argv[i + 1];
      if (text === undefined || /^--[a-z]/i.test(text)) {
        throw new UsageError(`--${name} needs a value: ${valueHelp(flag)}.`);
      }
      i += 1;
    }
    values[name] = parseValue(name, flag, text);
  }
  if (positionals.length > 0 && options.positionals === undefined && !help) {
    throw new UsageError(`Unexpected argument "${positionals[0]}". ${flagNames(flags)}`);
  }
  return {
    values: /** @type {{ [K in keyof F]: FlagValue<F[K]> }} */ (values),
    positionals,
    help,
  };
}

/**
 * @param {string} name
 * @param {Flag} flag
 * @param {string} text
 */
function parseValue(name, flag, text) {
  if (flag.type === "string") {
    if (text === "") throw new UsageError(`--${name} is empty; it needs ${valueHelp(flag)}.`);
    return text;
  }
  if (flag.type === "choice") {
    if (flag.choices?.includes(text)) return text;
    throw new UsageError(`--${name} ${text} is not supported. Valid: ${valueHelp(flag)}.`);
  }
  const pattern = flag.type === "integer" ? /^-?\d+$/ : /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;
  const number = pattern.test(text) ? Number(text) : Number.NaN;
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = flag;
  const fits = number >= min && number <= max && !(flag.above && number === min);
  const exact = flag.type !== "integer" || Number.isSafeInteger(number);
  if (!fits || !exact) {
    throw new UsageError(`--${name} ${text} is not supported. Valid: ${valueHelp(flag)}.`);
  }
  return number;
}

/** What a flag's value may be, in words. @param {Flag} flag */
export function valueHelp(flag) {
  if (flag.type === "choice") return (flag.choices ?? []).join(", ");
  if (flag.type === "string") return flag.value ?? "a text";
  const noun = flag.type === "integer" ? "a whole number" : "a number";
  const from =
    flag.min === undefined ? "" : flag.above ? ` above ${flag.min}` : ` from ${flag.min}`;
  return `${noun}${from}${flag.max === undefined ? "" : ` to ${flag.max}`}`;
}

/** Says which flags there are. @param {Record<string, Flag>} flags */
function flagNames(flags) {
  const names = Object.keys(flags).map((name) => `--${name}`);
  return names.length > 0 ? `Valid flags: ${names.join(", ")}.` : "There are no flags but --help.";
}

/**
 * Text for `--help`.
 * @param {string} usage
 * @param {Record<string, Flag>} flags
 */
export function helpText(usage, flags) {
  const lines = Object.entries(flags).map(([name, flag]) => {
    const value = flag.choices?.join("|") ?? flag.value ?? (flag.type === "boolean" ? "" : "N");
    return `  ${`--${name} ${value}`.padEnd(34)} ${flag.help}`;
  });
  return [usage, "", ...lines, ""].join("\n");
}
