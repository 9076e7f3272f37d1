import type { LabRequest } from "../workloads.ts";
import { MAX_MODEL_TOKENS } from "./limits.ts";

// Made-up token ids: what is sampled, shared prefixes, each request's own prompt, beams. The ranges do not
// meet, so tokens are equal where they are meant to be, and nowhere else; the last two name their request.

/** Sampled ids are below. */
const NUM_SAMPLED = 2 ** 16;
const OWN_TOKENS = 2 ** 26;
const BEAM_TOKENS = 2 ** 30;
/** Ids of a request's beams: more than there are ranks. */
const BEAM_IDS = 64;

/** Ids of a request's prompt. */
export function promptTokens({ index, promptTokens: count, prefix }: LabRequest): number[] {
  const shared = prefix?.tokens ?? 0;
  const base = NUM_SAMPLED + (prefix?.id ?? 0) * MAX_MODEL_TOKENS;
  return Array.from({ length: count }, (_, i) =>
    i < shared ? base + i : OWN_TOKENS + index * MAX_MODEL_TOKENS + i,
  );
}

/** What is sampled: depends on the sequence's seed and the position, and looks random. */
export function sampledToken([low, high]: readonly [number, number], position: number): number {
  const sequence = Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b);
  const mixed = sequence ^ Math.imul(position, 0xc2b2ae35);
  return ((mixed ^ (mixed >>> 15)) >>> 0) % NUM_SAMPLED;
}

/** The token of a beam that has this rank after it. */
export function beamToken(request: number, rank: number): number {
  return BEAM_TOKENS + request * BEAM_IDS + rank;
}

/** The rank that a beam's last token says; undefined for a prompt's token. */
export function beamRank(token: number): number | undefined {
  return token < BEAM_TOKENS ? undefined : (token - BEAM_TOKENS) % BEAM_IDS;
}

/** The request that a beam's token, or a prompt's own, belongs to; undefined for others. */
export function requestOf(token: number): number | undefined {
  if (token >= BEAM_TOKENS) return Math.floor((token - BEAM_TOKENS) / BEAM_IDS);
  if (token >= OWN_TOKENS) return Math.floor((token - OWN_TOKENS) / MAX_MODEL_TOKENS);
  return undefined;
}
