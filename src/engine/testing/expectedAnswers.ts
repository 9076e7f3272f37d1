import { BeamSearch } from "../beamSearch.ts";
import type { EngineRequest } from "../engineRequest.ts";
import { type ExpectedAnswer, expectedTokens, layer1Of, tokenLogprobs } from "./pagedExecutor.ts";

interface Limits {
  readonly maxContext: number;
  readonly endTokens: ReadonlySet<number>;
  readonly copyPeriod?: number;
}

type Answer = Pick<ExpectedAnswer, "tokens" | "finishReason">;

/** What a request must deliver, computed alone and without paging: one entry for each of its n answers. */
export function expectedAnswers(request: EngineRequest, limits: Limits): readonly Answer[] {
  const { promptTokens, sampling, stopTokenIds, ignoreEos, n, bestOf = n } = request;
  const maxTokens = Math.min(request.maxTokens, limits.maxContext - promptTokens.length);
  const stopTokens = new Set([...stopTokenIds, ...(ignoreEos ? [] : limits.endTokens)]);
  if (request.beam !== undefined) return expectedBeams(request, maxTokens, stopTokens);
  const [low, high] = sampling.seed;
  const samples = Array.from({ length: bestOf }, (_, i) =>
    expectedTokens(
      promptTokens,
      { ...sampling, seed: [low + i, high] },
      maxTokens,
      stopTokens,
      limits.copyPeriod,
    ),
  );
  if (bestOf === n) return samples;
  const mean = ({ tokens, finishReason, cumulativeLogprob }: ExpectedAnswer) =>
    cumulativeLogprob / (tokens.length + (finishReason === "stop" ? 1 : 0));
  return samples.sort((a, b) => mean(b) - mean(a)).slice(0, n); // stable: ties go to the lower sample
}

function expectedBeams(
  { promptTokens, n, beam }: EngineRequest,
  maxTokens: number,
  stopTokens: ReadonlySet<number>,
): readonly Answer[] {
  const search = new BeamSearch(beam!, { maxTokens, stopTokens });
  let live: number[][] = [[]];
  while (!search.isDone && maxTokens > 0) {
    const candidates = live.map((tokens) => {
      return tokenLogprobs(layer1Of([...promptTokens, ...tokens]), 0, 2 * search.width).top;
    });
    const moves = search.advance(candidates);
    live = moves.map(({ parent, token }) => [...live[parent]!, token]);
  }
  const found = search.hypotheses(n);
  return Array.from({ length: n }, (_, i) => ({
    tokens: [...(found[i]?.tokens ?? [])],
    finishReason: maxTokens === 0 || found[i]?.finishReason === "length" ? "length" : "stop",
  }));
}
