import { type GenerateRequest, MAX_BEAM_WIDTH } from "../worker/protocol.ts";
import { type Fields, invalidField, readBoolean, readChoice, readNumber } from "./validate.ts";

/** Names of the fields that say how the choices are found: drawn and ranked, or by beam search. */
export const SEARCH_FIELDS = [
  "best_of",
  "use_beam_search",
  "beam_width",
  "length_penalty",
  "early_stopping",
] as const;

/** Most samples that are drawn for one prompt, as for `n`. */
const MAX_BEST_OF = 128;

/**
 * Beam search ranks by the model's own log-probabilities and draws nothing: fields that would change
 * either, and the values that leave all as it is.
 */
const NOT_WITH_BEAMS: Readonly<Record<string, readonly unknown[]>> = {
  temperature: [0],
  top_p: [1],
  top_k: [0, -1],
  min_p: [0],
  presence_penalty: [0],
  frequency_penalty: [0],
  repetition_penalty: [1],
  logit_bias: [],
  seed: [],
  logprobs: [false],
  best_of: [],
  num_speculative_tokens: [0],
};

/**
 * What needs text or scores of a sample while it runs. The engine delivers the choices when it has
 * chosen them.
 */
const NOT_WITH_A_CHOICE: Readonly<Record<string, readonly unknown[]>> = {
  stop: [],
  prompt_logprobs: [],
};

/** Fields that say the same when they are empty as when they are left out. */
const CONTAINERS: ReadonlySet<string> = new Set(["stop", "logit_bias"]);

/** True where `use_beam_search` is. */
export function wantsBeams(fields: Fields): boolean {
  return readBoolean(fields, "use_beam_search") ?? false;
}

/** Throws `invalid-argument` for fields that do not go together, naming both. */
export function readSearch(fields: Fields, n: number): Pick<GenerateRequest, "bestOf" | "beam"> {
  return wantsBeams(fields) ? { beam: readBeam(fields, n) } : readBestOf(fields, n);
}

function readBeam(fields: Fields, n: number): GenerateRequest["beam"] {
  refuse(fields, { ...NOT_WITH_BEAMS, ...NOT_WITH_A_CHOICE }, "with `use_beam_search`");
  // vLLM's default: as many as are asked for.
  const width =
    readNumber(fields, "beam_width", { min: 1, max: MAX_BEAM_WIDTH, integer: true }) ?? n;
  if (n > width || n > MAX_BEAM_WIDTH) {
    throw invalidField("n", n, `at most \`beam_width\` (${Math.min(width, MAX_BEAM_WIDTH)})`);
  }
  return {
    width,
    lengthPenalty: readNumber(fields, "length_penalty", { min: -10, max: 10 }) ?? 1,
    earlyStopping: readChoice(fields, "early_stopping", [true, false, "never"]) ?? false,
  };
}

function readBestOf(fields: Fields, n: number): Pick<GenerateRequest, "bestOf"> {
  const beamOnly = { beam_width: [], length_penalty: [], early_stopping: [] };
  refuse(fields, beamOnly, "without `use_beam_search`");
  const bestOf = readNumber(fields, "best_of", { min: 1, max: MAX_BEST_OF, integer: true }) ?? n;
  if (bestOf < n) throw invalidField("best_of", bestOf, `at least \`n\` (${n})`);
  // Nothing to choose: the samples are delivered as they come.
  if (bestOf === n) return {};
  refuse(fields, NOT_WITH_A_CHOICE, "with `best_of` above `n`");
  return { bestOf };
}

function refuse(
  fields: Fields,
  refused: Readonly<Record<string, readonly unknown[]>>,
  where: string,
): void {
  for (const [field, neutral] of Object.entries(refused)) {
    const value = fields[field];
    if (value === undefined || value === null || neutral.includes(value)) continue;
    if (CONTAINERS.has(field) && isEmpty(value)) continue;
    const allowed = neutral.length === 0 ? "left out" : `left out or ${neutral.join(" or ")}`;
    throw invalidField(field, value, `${allowed} ${where}`);
  }
}

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
