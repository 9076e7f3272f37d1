import { QuireError } from "../errors.ts";

// Checks of user input at the border. `null` counts as absent, as in OpenAI's API.

/** An object whose fields are still to be checked. */
export type Fields = Readonly<Record<string, unknown>>;

interface NumberRange {
  readonly min: number;
  readonly max: number;
  /** True: `min` itself is not allowed. */
  readonly above?: boolean;
  readonly integer?: boolean;
}

/** The error for a field whose value is not allowed. */
export function invalidField(field: string, found: unknown, allowed: string): QuireError {
  const shown = describe(found);
  const message = `\`${field}\` is ${shown}; it must be ${allowed}.`;
  return new QuireError("invalid-argument", message, { field, found: shown, allowed });
}

/** The error for a field or value that this version does not offer. */
export function unsupportedField(field: string, advice: string): QuireError {
  const message = `\`${field}\` is not supported by this version of Quire. ${advice}`;
  return new QuireError("unsupported", message, { field });
}

/** A plain object: of a Map or another class's instance the fields are not what it holds. */
export function readObject(value: unknown, name: string): Fields {
  if (typeof value === "object" && value !== null && isPlain(value)) return value as Fields;
  throw invalidField(name, value, "a plain object");
}

/** Of any realm: nothing, or an object above which there is nothing, is its prototype. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** `read` of each entry. A hole is read too, as undefined: `map` would leave it a hole. */
export function readEach<T>(
  list: readonly unknown[],
  read: (entry: unknown, index: number) => T,
): T[] {
  return Array.from(list, read);
}

/** Refuses fields that are set but not in `known`. */
export function refuseUnknown(fields: Fields, known: ReadonlySet<string>, prefix = ""): void {
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null || known.has(name)) continue;
    const list = [...known].sort().join(", ");
    throw unsupportedField(`${prefix}${name}`, `Leave it out. Supported fields: ${list}.`);
  }
}

export function readNumber(fields: Fields, field: string, range: NumberRange): number | undefined {
  const value = fields[field];
  if (value === undefined || value === null) return undefined;
  checkNumber(value, field, range);
  return value;
}

export function checkNumber(
  value: unknown,
  field: string,
  range: NumberRange,
): asserts value is number {
  const { min, max, above = false, integer = false } = range;
  const fits =
    typeof value === "number" &&
    (above ? value > min : value >= min) &&
    value <= max &&
    (!integer || Number.isInteger(value));
  if (fits) return;
  const kind = integer ? "an integer" : "a number";
  const low = above ? `above ${min}` : `from ${min}`;
  throw invalidField(field, value, `${kind} ${low} to ${max}`);
}

export function readBoolean(fields: Fields, field: string): boolean | undefined {
  const value = fields[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "boolean") throw invalidField(field, value, "true or false");
  return value;
}

export function readSignal(fields: Fields, field: string): AbortSignal | undefined {
  const value = fields[field];
  if (value === undefined || value === null) return undefined;
  const signal = value as AbortSignal;
  if (typeof signal.aborted === "boolean" && typeof signal.addEventListener === "function") {
    return signal;
  }
  throw invalidField(field, value, "an AbortSignal");
}

/** One of a few values; `undefined` where absent. */
export function readChoice<T extends string | number | boolean>(
  fields: Fields,
  field: string,
  choices: readonly T[],
): T | undefined {
  const value = fields[field];
  if (value === undefined || value === null) return undefined;
  if ((choices as readonly unknown[]).includes(value)) return value as T;
  throw invalidField(field, value, `one of ${choices.map(describe).join(", ")}`);
}

/**
 * Text as a sequence of whole characters: a lone surrogate becomes U+FFFD, as everywhere on the web
 * where a string turns into UTF-8.
 */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\uFFFD");
}

function describe(value: unknown): string {
  if (typeof value === "string") {
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  }
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") return String(value);
  const kind = Object.prototype.toString.call(value).slice("[object ".length, -1);
  return kind === "Object" ? "an object" : `an object (${kind})`;
}
