import { BeamGroup } from "./beamGroup.ts";
import { BeamSearch } from "./beamSearch.ts";
import { Drafter } from "./drafter.ts";
import type { EngineRequest, Keep, RequestLimits } from "./engineRequest.ts";
import { checkRequest } from "./requestChecks.ts";
import { GREEDY, type SamplingParams, usesPenalties } from "./sampling.ts";
import { type RequestId, Sequence } from "./sequence.ts";

/** A request in the engine. */
export interface Request {
  readonly id: RequestId;
  /** Sequences or hypotheses that the caller gets. */
  readonly n: number;
  readonly promptTokens: number;
  /** The samples, the first of which computes the prompt; of a beam search just that one. */
  readonly sequences: readonly Sequence[];
  readonly beams: BeamGroup | undefined;
  /** True if the caller did not ask for the log-probabilities that ranking the samples needs. */
  readonly hidesLogprobs: boolean;
  readonly keep: Keep | undefined;
  readonly session: string | undefined;
  /** The session ended before the request did. */
  isSessionOver: boolean;
  /** On the engine's clock; Infinity = none. */
  readonly deadlineAtMs: number;
  /** Samples that have not ended; 1 for a beam search under way. */
  numUnfinished: number;
  /** Ended samples that wait for the others, to be ranked; undefined where they are delivered as they come. */
  readonly withheld: Sequence[] | undefined;
}

/**
 * Checks a request against the limits and makes its sequences, numbered from `arrival` on.
 * Throws `invalid-argument`, `context-overflow`, `kv-pool-too-small`.
 */
export function createRequest(
  request: EngineRequest,
  limits: RequestLimits,
  arrival: number,
  nowMs = 0,
): Request {
  checkRequest(request, limits);
  const { id, beam, n } = request;
  const count = beam === undefined ? (request.bestOf ?? n) : 1;
  const ranks = count > n;
  const maxTokens = Math.min(request.maxTokens, limits.maxContext - request.promptTokens.length);
  const stopTokens = new Set(request.stopTokenIds);
  if (!request.ignoreEos) for (const token of limits.endTokens) stopTokens.add(token);
  const beams = beam && new BeamGroup(new BeamSearch(beam, { maxTokens, stopTokens }));
  const sequences = Array.from(
    { length: count },
    (_, index) =>
      new Sequence({
        requestId: id,
        index,
        arrival: arrival + index,
        promptTokens: request.promptTokens,
        maxTokens,
        stopTokens,
        promptLogprobs: index === 0 ? request.promptLogprobs : undefined,
        sampling: samplingOf(request, index, ranks),
        prefixScope: { salt: request.cacheSalt ?? "", adapterId: request.adapterId ?? null },
        priority: request.priority ?? 0,
        arrivalMs: nowMs,
        session: request.session,
      }),
  );
  const [first, ...others] = sequences;
  first!.beams = beams;
  beams?.live.push(first!);
  first!.setForks(others, request.promptTokens.length);
  const drafts = request.numSpeculativeTokens ?? 0;
  for (const sequence of sequences) {
    // Penalties count each sampled token before the next is drawn, which drafts in one step cannot.
    if (drafts > 0 && beams === undefined && !usesPenalties(sequence.sampling)) {
      sequence.drafter = new Drafter(drafts, sequence.tokens);
    }
  }
  return {
    id,
    n,
    promptTokens: request.promptTokens.length,
    sequences,
    beams,
    hidesLogprobs: request.sampling.logprobs === undefined,
    keep: request.keep,
    session: request.session,
    isSessionOver: false,
    deadlineAtMs: request.deadlineMs === undefined ? Infinity : nowMs + request.deadlineMs,
    numUnfinished: count,
    withheld: ranks ? [] : undefined,
  };
}

/** Sample i draws with seed + i. Beams are ranked by the best tokens' log-probabilities alone. */
function samplingOf(
  { sampling, beam }: EngineRequest,
  index: number,
  ranks: boolean,
): SamplingParams {
  if (beam !== undefined) return { ...GREEDY, logprobs: 2 * beam.width };
  const logprobs = ranks ? (sampling.logprobs ?? 0) : sampling.logprobs;
  return { ...sampling, logprobs, seed: addToSeed(sampling.seed, index) };
}

/** 64-bit addition over two unsigned words. */
function addToSeed(
  [low, high]: readonly [number, number],
  index: number,
): readonly [number, number] {
  const sum = low + index;
  return [sum >>> 0, (high + Math.floor(sum / 2 ** 32)) >>> 0];
}
