import {
  type GenerateRequest,
  MAX_LOGIT_BIAS,
  MAX_LOGPROBS,
  type SamplingParams,
} from "../worker/protocol.ts";
import { readScheduling, SCHEDULING_FIELDS } from "./schedulingFields.ts";
import { readSearch, SEARCH_FIELDS, wantsBeams } from "./searchFields.ts";
import {
  checkNumber,
  type Fields,
  invalidField,
  readBoolean,
  readEach,
  readNumber,
  readObject,
  readSignal,
  refuseUnknown,
  wellFormed,
} from "./validate.ts";

/** Most stop texts of a request. */
const MAX_STOPS = 16;
/** Most choices of a prompt (OpenAI's limit). */
const MAX_CHOICES = 128;
/** Above every vocabulary; the worker checks ids against the model's. */
const MAX_TOKEN_ID = 2 ** 31 - 1;

/** Names of the fields that chat and plain completions share. */
export const COMMON_FIELDS = [
  "model",
  "max_tokens",
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "seed",
  "stop",
  "stop_token_ids",
  "ignore_eos",
  "n",
  "presence_penalty",
  "frequency_penalty",
  "repetition_penalty",
  "logit_bias",
  "logprobs",
  "prompt_logprobs",
  "return_token_ids",
  "stream",
  "stream_options",
  "signal",
  ...SEARCH_FIELDS,
  ...SCHEDULING_FIELDS,
] as const;

/** What `create` needs besides the worker's requests. */
export interface CallOptions {
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly returnTokenIds: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Fields of a worker request that do not depend on the prompt. */
export type RequestSettings = Omit<GenerateRequest, "requestId" | "prompt">;

export function readCallOptions(fields: Fields): CallOptions {
  const stream = readBoolean(fields, "stream") ?? false;
  let includeUsage = false;
  if (fields["stream_options"] !== undefined && fields["stream_options"] !== null) {
    if (!stream) {
      throw invalidField("stream_options", fields["stream_options"], "left out without `stream`");
    }
    const options = readObject(fields["stream_options"], "stream_options");
    refuseUnknown(options, new Set(["include_usage"]), "stream_options.");
    includeUsage = readBoolean(options, "include_usage") ?? false;
  }
  if (fields["model"] !== undefined && fields["model"] !== null) {
    if (typeof fields["model"] !== "string") throw invalidField("model", fields["model"], "a text");
  }
  return {
    stream,
    includeUsage,
    returnTokenIds: readBoolean(fields, "return_token_ids") ?? false,
    signal: readSignal(fields, "signal"),
  };
}

/** `logprobs` is read by the caller: chat and plain completions differ there. */
export function readSettings(fields: Fields, logprobs: number | undefined): RequestSettings {
  const promptLogprobs = readLogprobCount(fields, "prompt_logprobs");
  // Without an answer something must be asked about the prompt.
  const leastTokens = promptLogprobs === undefined ? 1 : 0;
  const n = readNumber(fields, "n", { min: 1, max: MAX_CHOICES, integer: true }) ?? 1;
  return {
    n,
    ...readSearch(fields, n),
    maxTokens: readMaxTokens(fields, leastTokens),
    stop: readStop(fields["stop"]),
    stopTokenIds: readTokenIds(fields, "stop_token_ids"),
    ignoreEos: readBoolean(fields, "ignore_eos") ?? false,
    sampling: readSampling(fields, logprobs),
    promptLogprobs,
    ...readScheduling(fields),
  };
}

function readSampling(fields: Fields, logprobs: number | undefined): SamplingParams {
  const topK = readNumber(fields, "top_k", { min: -1, max: MAX_TOKEN_ID, integer: true }) ?? 0;
  const penalty = { min: -2, max: 2 };
  return {
    temperature:
      readNumber(fields, "temperature", { min: 0, max: 2 }) ?? (wantsBeams(fields) ? 0 : 1),
    topK: Math.max(topK, 0),
    topP: readNumber(fields, "top_p", { min: 0, max: 1, above: true }) ?? 1,
    minP: readNumber(fields, "min_p", { min: 0, max: 1 }) ?? 0,
    repetitionPenalty:
      readNumber(fields, "repetition_penalty", { min: 0, max: 2, above: true }) ?? 1,
    presencePenalty: readNumber(fields, "presence_penalty", penalty) ?? 0,
    frequencyPenalty: readNumber(fields, "frequency_penalty", penalty) ?? 0,
    logitBias: readLogitBias(fields["logit_bias"]),
    seed: readSeed(fields),
    logprobs,
  };
}

export function readLogprobCount(fields: Fields, field: string): number | undefined {
  return readNumber(fields, field, { min: 0, max: MAX_LOGPROBS, integer: true });
}

/** A list of token ids; the worker checks them against the vocabulary. */
export function checkTokenIds(value: unknown, field: string): readonly number[] {
  if (!Array.isArray(value)) throw invalidField(field, value, "a list of token ids");
  for (const [i, id] of value.entries()) {
    checkNumber(id, `${field}[${i}]`, { min: 0, max: MAX_TOKEN_ID, integer: true });
  }
  return [...value];
}

function readTokenIds(fields: Fields, field: string): readonly number[] {
  const value = fields[field];
  return value === undefined || value === null ? [] : checkTokenIds(value, field);
}

function readMaxTokens(fields: Fields, min: number): number | undefined {
  const range = { min, max: MAX_TOKEN_ID, integer: true };
  const old = readNumber(fields, "max_tokens", range);
  const current = readNumber(fields, "max_completion_tokens", range);
  if (old !== undefined && current !== undefined && old !== current) {
    throw invalidField("max_tokens", old, `equal to \`max_completion_tokens\` (${current})`);
  }
  return current ?? old;
}

function readStop(value: unknown): readonly string[] {
  if (value === undefined || value === null) return [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const allowed = `a text or a list of up to ${MAX_STOPS} texts, none empty`;
  if (list.length > MAX_STOPS) throw invalidField("stop", value, allowed);
  return readEach(list, (text, i) => {
    if (typeof text === "string" && text !== "") return wellFormed(text);
    throw invalidField(Array.isArray(value) ? `stop[${i}]` : "stop", text, allowed);
  });
}

function readLogitBias(value: unknown): SamplingParams["logitBias"] {
  if (value === undefined || value === null) return [];
  const entries = Object.entries(readObject(value, "logit_bias"));
  if (entries.length > MAX_LOGIT_BIAS) {
    const found = `${entries.length} entries`;
    throw invalidField("logit_bias", found, `an object of up to ${MAX_LOGIT_BIAS} entries`);
  }
  return entries.map(([key, bias]) => {
    // Without leading zeros, so that no id is given twice.
    const id = /^(0|[1-9]\d*)$/.test(key) ? Number(key) : Number.NaN;
    if (!(id <= MAX_TOKEN_ID)) throw invalidField("logit_bias", key, "keyed by token ids");
    checkNumber(bias, `logit_bias[${key}]`, { min: -100, max: 100 });
    return [id, bias] as const;
  });
}

/** A number becomes a 64-bit key (two's complement); without one the key is random. */
function readSeed(fields: Fields): readonly [number, number] {
  const limit = Number.MAX_SAFE_INTEGER;
  const seed = readNumber(fields, "seed", { min: -limit, max: limit, integer: true });
  if (seed === undefined) {
    const [low = 0, high = 0] = crypto.getRandomValues(new Uint32Array(2));
    return [low, high];
  }
  const high = Math.floor(seed / 2 ** 32);
  return [seed >>> 0, high >>> 0];
}
