import type { BeamGroup } from "./beamGroup.ts";
import type { BeamHypothesis } from "./beamSearch.ts";
import { Deadlines } from "./deadlines.ts";
import type { EngineMetrics } from "./metrics.ts";
import type { OutputEstimate } from "./outputEstimate.ts";
import type { Request } from "./request.ts";
import type { Scheduler } from "./scheduler.ts";
import type { FinishReason, RequestId, Sequence } from "./sequence.ts";
import { outputOf, type SequenceOutput } from "./sequenceOutput.ts";
import { NO_TOKEN, type StepResult, type TokenLogprobs } from "./step.ts";
import type { ScheduledStep } from "./stepBuilder.ts";

export interface OutcomesOptions {
  readonly scheduler: Scheduler;
  readonly metrics: EngineMetrics;
  readonly estimate: OutputEstimate;
  readonly now: () => number;
}

/** What steps make of requests: tokens appended, stop rules applied, answers ranked, ends told. */
export class Outcomes {
  /** Those that have not ended. */
  readonly requests: ReadonlyMap<RequestId, Request>;
  /** Theirs. */
  readonly deadlines = new Deadlines();
  readonly #requests = new Map<RequestId, Request>();
  readonly #scheduler: Scheduler;
  readonly #metrics: EngineMetrics;
  readonly #estimate: OutputEstimate;
  readonly #now: () => number;

  constructor(options: OutcomesOptions) {
    this.#scheduler = options.scheduler;
    this.#metrics = options.metrics;
    this.#estimate = options.estimate;
    this.#now = options.now;
    this.requests = this.#requests;
  }

  /** A request has come. */
  add(request: Request): void {
    this.#requests.set(request.id, request);
    this.deadlines.add(request);
  }

  /** The session is over: what was kept for it is evicted first, and so will be what its requests leave. */
  endSession(session: string): void {
    for (const request of this.requests.values()) {
      if (request.session === session) request.isSessionOver = true;
    }
    this.#scheduler.kvCache.endSession(session);
  }

  /**
   * The news of a step's result. What it says of sequences that left their slots meanwhile is void. A
   * request for which the model has no number ends with an error, and nobody else does.
   */
  receive({ step, samples, scores }: ScheduledStep, result: StepResult): SequenceOutput[] {
    const outputs: SequenceOutput[] = [];
    for (const [i, { sequence, epoch }] of scores.entries()) {
      if (sequence.epoch !== epoch || sequence.promptScores === undefined) continue;
      const { position } = step.rows[step.scores[i]!.row]!;
      sequence.promptScores[position] = result.scores[i]!;
    }
    let end = 0;
    for (let start = 0; start < samples.length; start = end) {
      const { sequence, epoch } = samples[start]!;
      end = start + 1;
      while (samples[end]?.sequence === sequence) end += 1; // at its drafts' rows
      if (sequence.epoch !== epoch) continue;
      const request = this.requests.get(sequence.requestId)!;
      if (result.tokens[start] === NO_TOKEN) {
        outputs.push(...this.end(request, "error"));
      } else if (request.beams === undefined) {
        outputs.push(...this.#takeSamples(sequence, { step, result, start, end }));
      } else {
        outputs.push(...this.#takeCandidates(sequence, request.beams, result.logprobs[start]));
      }
    }
    return outputs;
  }

  /** Ends what has not ended of a request. Returns the last outputs; none the second time. */
  end(request: Request | undefined, reason: FinishReason): SequenceOutput[] {
    if (request === undefined) return [];
    if (request.beams !== undefined) {
      if (reason !== "stop") request.beams.search.end(reason);
      return this.#finishBeams(request, request.beams, reason);
    }
    const open = request.sequences.filter(({ status }) => status !== "finished");
    return open.flatMap((sequence) => this.finish(sequence, reason));
  }

  /** Ends a sequence that has not ended. Returns its last output, or all of a request whose samples are ranked. */
  finish(
    sequence: Sequence,
    reason: FinishReason,
    tokens: readonly number[] = [],
    logprobs?: readonly TokenLogprobs[],
  ): SequenceOutput[] {
    const request = this.requests.get(sequence.requestId)!;
    this.#noteUse(sequence, request);
    this.#scheduler.residents.finish(sequence, reason);
    this.#metrics.recordFinish(sequence.times, reason, this.#now());
    if (reason === "stop" || reason === "length") {
      this.#estimate.record(sequence.tokens.length - sequence.numPromptTokens, sequence.session);
    }
    request.numUnfinished -= 1;
    if (request.numUnfinished === 0) this.#close(request);
    if (request.withheld === undefined) return [outputOf(sequence, tokens, logprobs)];
    request.withheld.push(sequence);
    return request.numUnfinished === 0 ? rank(request) : [];
  }

  #takeSamples(
    sequence: Sequence,
    {
      step,
      result,
      start,
      end,
    }: {
      readonly step: ScheduledStep["step"];
      readonly result: StepResult;
      readonly start: number;
      readonly end: number;
    },
  ): SequenceOutput[] {
    const { kvCache } = this.#scheduler;
    const tokens: number[] = [];
    const logprobs: TokenLogprobs[] = [];
    const isFirst = sequence.tokens.length === sequence.numPromptTokens;
    let finishReason: FinishReason | undefined;
    for (let i = start; i < end && finishReason === undefined; i++) {
      // The first row holds the sequence's last token, later ones a draft each.
      const draft = step.rows[step.samples[i]!.row]!.token;
      const token = result.tokens[i]!;
      if (i > start && (draft !== sequence.tokens.at(-1) || token === NO_TOKEN)) break;
      finishReason = this.#append(sequence, token, result.logprobs[i], tokens, logprobs);
    }
    sequence.isHeld = false;
    const numDrafts = end - start - 1;
    const numAccepted = Math.max(0, tokens.length - 1);
    if (sequence.drafter !== undefined) {
      sequence.drafter.record(tokens, numDrafts, numAccepted);
      this.#metrics.recordDrafts(numDrafts, numAccepted);
    }
    if (tokens.length > 0) this.#metrics.recordTokens(sequence.times, tokens.length, this.#now());
    const request = this.requests.get(sequence.requestId)!;
    // The last token has no row yet, unless what was sampled at its row ended the sequence.
    const numRowless = sequence.stopToken === undefined ? 1 : 0;
    if (numDrafts > 0) kvCache.truncate(sequence, sequence.tokens.length - numRowless);
    kvCache.cacheFullBlocks(sequence);
    if (isFirst) this.#noteUse(sequence, request);
    if (request.withheld !== undefined) sequence.logprobs.push(...logprobs);
    const given = sequence.sampling.logprobs === undefined ? undefined : logprobs;
    if (finishReason !== undefined) return this.finish(sequence, finishReason, tokens, given);
    return request.withheld === undefined ? [outputOf(sequence, tokens, given)] : [];
  }

  /** Appends a sampled token, to the sequence and the news, unless it ends the sequence without being part of it. */
  #append(
    sequence: Sequence,
    token: number,
    logprobs: TokenLogprobs | undefined,
    tokens: number[],
    allLogprobs: TokenLogprobs[],
  ): FinishReason | undefined {
    if (sequence.numPendingTokens > 0) sequence.numPendingTokens -= 1;
    if (sequence.maxTokens === 0) return "length"; // only the prompt was asked about
    if (logprobs !== undefined) sequence.cumulativeLogprob += logprobs.logprob;
    if (sequence.stopTokens.has(token)) {
      sequence.stopToken = token;
      return "stop";
    }
    sequence.tokens.push(token);
    tokens.push(token);
    if (logprobs !== undefined) allLogprobs.push(logprobs);
    const numOutputTokens = sequence.tokens.length - sequence.numPromptTokens;
    return numOutputTokens === sequence.maxTokens ? "length" : undefined;
  }

  #takeCandidates(
    beam: Sequence,
    group: BeamGroup,
    logprobs: TokenLogprobs | undefined,
  ): SequenceOutput[] {
    const request = this.requests.get(beam.requestId)!;
    beam.isHeld = false;
    const [first] = request.sequences;
    if (beam.maxTokens === 0) return this.#finishBeams(request, group, "length");
    if (beam.tokens.length === beam.numPromptTokens) this.#noteUse(beam, request);
    const moves = group.receive(beam, logprobs!.top);
    if (moves === undefined) return [];
    this.#metrics.recordTokens(first!.times, 1, this.#now());
    if (group.search.isDone) return this.#finishBeams(request, group, "stop");
    this.#scheduler.residents.moveBeams(group, moves);
    return [];
  }

  /** `reason` is that of hypotheses that the search does not know the end of: there are none. */
  #finishBeams(request: Request, group: BeamGroup, reason: FinishReason): SequenceOutput[] {
    const [first] = request.sequences as [Sequence];
    this.#scheduler.residents.finishBeams(group, reason);
    this.#close(request);
    const promptScores = first.takePromptScores();
    const hypotheses: (BeamHypothesis | undefined)[] = group.search.hypotheses(request.n);
    while (hypotheses.length < request.n) hypotheses.push(undefined);
    return hypotheses.map((hypothesis, index) => {
      // What a search that failed had found is not the best that there is.
      const finishReason = reason === "error" ? reason : (hypothesis?.finishReason ?? reason);
      this.#metrics.recordFinish(first.times, finishReason, this.#now());
      return {
        requestId: request.id,
        index,
        tokens: hypothesis?.tokens ?? [],
        cumulativeLogprob: hypothesis?.cumulativeLogprob,
        promptScores: index === 0 ? promptScores : undefined,
        finishReason,
        stopToken: hypothesis?.stopToken,
        promptTokens: first.numPromptTokens,
        cachedTokens: first.cachedTokens ?? 0,
      };
    });
  }

  #close(request: Request): void {
    this.#requests.delete(request.id);
    this.deadlines.remove(request);
  }

  /** Its conversation goes on here, and what is to be kept of its prompt was used now. */
  #noteUse(sequence: Sequence, { keep, session, isSessionOver }: Request): void {
    if (sequence.status !== "running") return;
    const { kvCache } = this.#scheduler;
    if (isSessionOver) {
      kvCache.leave(sequence);
      return;
    }
    if (keep !== undefined) kvCache.keep(sequence, keep.ttlMs, session);
    if (session !== undefined) kvCache.noteSession(session, sequence);
  }
}

/** The n best of all samples by mean log-probability a token (OpenAI's `best_of`); ties to the lower sample. */
function rank({ n, withheld, hidesLogprobs }: Request): SequenceOutput[] {
  const mean = (sequence: Sequence) => {
    const isStop = sequence.stopToken !== undefined ? 1 : 0;
    const numTokens = sequence.tokens.length - sequence.numPromptTokens + isStop;
    return numTokens === 0 ? Number.NEGATIVE_INFINITY : sequence.cumulativeLogprob / numTokens;
  };
  const ranked = [...withheld!].sort((a, b) => {
    const difference = mean(b) - mean(a);
    return difference !== 0 && !Number.isNaN(difference) ? difference : a.index - b.index;
  });
  const promptScores = ranked
    .map((sequence) => sequence.takePromptScores())
    .find((scores) => scores);
  const [first] = ranked.filter(({ index }) => index === 0);
  return ranked.slice(0, n).map((sequence, index) => {
    const tokens = sequence.tokens.slice(sequence.numPromptTokens);
    const output = outputOf(sequence, tokens, hidesLogprobs ? undefined : sequence.logprobs);
    const cachedTokens = first!.cachedTokens ?? 0;
    return { ...output, index, cachedTokens, promptScores: index === 0 ? promptScores : undefined };
  });
}
