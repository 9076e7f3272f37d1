import { type GenerateRequest, MAX_SPECULATIVE_TOKENS } from "../worker/protocol.ts";
import {
  type Fields,
  invalidField,
  readNumber,
  readObject,
  refuseUnknown,
  wellFormed,
} from "./validate.ts";

/** Names of the fields that say when a request runs, what it shares and what stays of it. */
export const SCHEDULING_FIELDS = [
  "priority",
  "cache_salt",
  "deadline_ms",
  "keep",
  "session",
  "num_speculative_tokens",
] as const;

/** Far beyond any order of importance; the engine adds them to times. */
const MAX_PRIORITY = 1_000_000;
/** UTF-16 units of `cache_salt` and `session`. */
const MAX_NAME_LENGTH = 1024;
/** 24 days, as of a browser's timers. */
const MAX_MILLISECONDS = 2 ** 31 - 1;
type Scheduling = Pick<
  GenerateRequest,
  "priority" | "cacheSalt" | "deadlineMs" | "keep" | "session" | "numSpeculativeTokens"
>;

/** Throws `invalid-argument`. */
export function readScheduling(fields: Fields): Scheduling {
  const priority = { min: -MAX_PRIORITY, max: MAX_PRIORITY, integer: true };
  const drafts = { min: 0, max: MAX_SPECULATIVE_TOKENS, integer: true };
  return {
    priority: readNumber(fields, "priority", priority),
    cacheSalt: readName(fields, "cache_salt"),
    deadlineMs: readNumber(fields, "deadline_ms", { min: 0, max: MAX_MILLISECONDS, above: true }),
    keep: readKeep(fields["keep"]),
    session: readName(fields, "session"),
    numSpeculativeTokens: readNumber(fields, "num_speculative_tokens", drafts),
  };
}

/** The text of a name that only has to be the same each time; `undefined` where absent. */
export function readName(fields: Fields, field: string): string | undefined {
  const value = fields[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string" && value !== "" && value.length <= MAX_NAME_LENGTH) {
    return wellFormed(value);
  }
  throw invalidField(field, value, `a text of 1 to ${MAX_NAME_LENGTH} characters`);
}

function readKeep(value: unknown): Scheduling["keep"] {
  if (value === undefined || value === null || value === false) return undefined;
  if (value === true) return { ttlMs: Number.POSITIVE_INFINITY };
  if (typeof value !== "object") throw invalidField("keep", value, "true, false or { ttl_ms }");
  const fields = readObject(value, "keep");
  refuseUnknown(fields, new Set(["ttl_ms"]), "keep.");
  const ttlMs = readNumber(fields, "ttl_ms", { min: 0, max: MAX_MILLISECONDS, above: true });
  if (ttlMs === undefined) throw invalidField("keep", value, "true or { ttl_ms: milliseconds }");
  return { ttlMs };
}
