import { describe, expect, it } from "vitest";
import { type BeamCandidate, type BeamHypothesis, BeamSearch } from "./beamSearch.ts";
import type { BeamSearchParams } from "./engineRequest.ts";

/** A toy language model: next-token log-probabilities that depend on all tokens before. */
type Model = (tokens: readonly number[]) => readonly number[];

/** mulberry32 over a hash of the tokens: different, fixed distributions after different prefixes. */
function createModel(seed: number, numTokens: number, options: { ties?: boolean } = {}): Model {
  return (tokens) => {
    let state = seed;
    for (const token of tokens) state = Math.imul(state ^ (token + 1), 0x9e3779b1) ^ (state >>> 7);
    const logits = Array.from({ length: numTokens }, (_, token) => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      const uniform = ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
      // Tokens below 3 are likelier: those that stop.
      return (options.ties ? Math.floor(uniform * 3) : uniform * 4) + (token < 3 ? 1 : 0);
    });
    const logSum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    return logits.map((logit) => logit - logSum);
  };
}

/** The best tokens, best first, ties to the lowest id: what a back end reports. */
function bestOf(logprobs: readonly number[], count: number): BeamCandidate[] {
  return logprobs
    .map((logprob, token) => ({ token, logprob }))
    .sort((a, b) => b.logprob - a.logprob || a.token - b.token)
    .slice(0, count);
}

interface Setting extends BeamSearchParams {
  readonly maxTokens: number;
  readonly stopTokens: ReadonlySet<number>;
}

/** The first step: what may follow the prompt. */
function start(beams: BeamSearch, candidates: readonly BeamCandidate[]) {
  return beams.advance([candidates]);
}

/** Drives the search as the engine does: with the tokens of its own live beams. */
function search(model: Model, setting: Setting): { hypotheses: BeamHypothesis[]; steps: number } {
  const beams = new BeamSearch(setting, setting);
  let live: number[][] = [[]];
  let steps = 0;
  while (!beams.isDone) {
    expect(beams.numLive).toBe(live.length);
    const candidates = live.map((tokens) => bestOf(model(tokens), 2 * setting.width));
    const moves = beams.advance(candidates);
    live = moves.map(({ parent, token }) => [...live[parent]!, token]);
    for (const [rank, { cumulativeLogprob }] of moves.entries()) {
      expect(cumulativeLogprob).toBe(sum(model, live[rank]!));
    }
    steps += 1;
  }
  expect(live).toEqual([]);
  return { hypotheses: beams.hypotheses(setting.width), steps };
}

function sum(model: Model, tokens: readonly number[]): number {
  return tokens.reduce((total, token, i) => total + model(tokens.slice(0, i))[token]!, 0);
}

/**
 * Beam search as the textbook has it: whole hypotheses, all continuations of each, everything sorted and
 * scored anew in every step.
 */
function plainSearch(
  model: Model,
  setting: Setting,
): { hypotheses: BeamHypothesis[]; steps: number } {
  const { width, lengthPenalty, earlyStopping, maxTokens, stopTokens } = setting;
  const scoreAt = (logprob: number, length: number) => logprob / length ** lengthPenalty;
  let live = [{ tokens: [] as number[], logprob: 0 }];
  let finished: BeamHypothesis[] = [];
  const keepBest = () => {
    // Stable: of equals the earlier one stays ahead.
    finished = finished.sort((a, b) => b.score - a.score).slice(0, width);
  };
  for (let length = 1; ; length++) {
    const all = live
      .flatMap(({ tokens, logprob }, parent) =>
        model(tokens).map((next, token) => ({
          parent,
          token,
          tokens: [...tokens, token],
          logprob: logprob + next,
        })),
      )
      .sort((a, b) => b.logprob - a.logprob || a.parent - b.parent || a.token - b.token);
    for (const { token, tokens, logprob } of all.slice(0, width)) {
      if (!stopTokens.has(token)) continue;
      const score = scoreAt(logprob, length);
      finished.push({
        tokens: tokens.slice(0, -1),
        cumulativeLogprob: logprob,
        score,
        finishReason: "stop",
        stopToken: token,
      });
    }
    live = all.filter(({ token }) => !stopTokens.has(token)).slice(0, width);
    if (length === maxTokens) {
      for (const { tokens, logprob } of live) {
        const score = scoreAt(logprob, length);
        finished.push({ tokens, cumulativeLogprob: logprob, score, finishReason: "length" });
      }
      keepBest();
      return { hypotheses: finished, steps: length };
    }
    keepBest();
    if (finished.length < width) continue;
    const worst = finished.at(-1)!.score;
    const reachable = live.map(({ logprob }) => {
      const now = scoreAt(logprob, length);
      // Log-probabilities only fall, so a score is at most that of no further cost at the best length.
      return earlyStopping === "never" ? Math.max(now, scoreAt(logprob, maxTokens)) : now;
    });
    if (earlyStopping === true || Math.max(...reachable) <= worst) {
      return { hypotheses: finished, steps: length };
    }
  }
}

const WIDTHS = [1, 2, 3, 4, 5, 6];
const PENALTIES = [-1, 0, 0.6, 1, 2];
const EARLY = [true, false, "never"] as const;

describe("BeamSearch", () => {
  it("finds what a plain beam search over all continuations finds", () => {
    let numStopped = 0;
    let numLength = 0;
    let numEarly = 0;
    for (const width of WIDTHS) {
      for (const lengthPenalty of PENALTIES) {
        for (const earlyStopping of EARLY) {
          for (let seed = 1; seed <= 6; seed++) {
            // At most `width` stop tokens: with more, 2 * width candidates a beam do not suffice.
            const numStops = Math.min(width, seed % 3);
            const setting = {
              width,
              lengthPenalty,
              earlyStopping,
              maxTokens: 1 + ((5 * seed + width) % 12),
              stopTokens: new Set([1, 0, 2].slice(0, numStops)),
            };
            const model = createModel(1000 * seed + width, 13, { ties: seed === 6 });
            const found = search(model, setting);
            expect(found, JSON.stringify(setting)).toEqual(plainSearch(model, setting));
            if (found.steps < setting.maxTokens) numEarly += 1;
            for (const { finishReason } of found.hypotheses) {
              if (finishReason === "stop") numStopped += 1;
              else numLength += 1;
            }
          }
        }
      }
    }
    // The cases exercise what they are for.
    for (const count of [numStopped, numLength, numEarly]) expect(count).toBeGreaterThan(100);
  });

  it("is greedy decoding at width 1", () => {
    for (let seed = 1; seed <= 30; seed++) {
      const model = createModel(seed, 9);
      const stop = 4;
      const greedy: number[] = [];
      for (let token = -1; token !== stop && greedy.length < 12; ) {
        token = bestOf(model(greedy), 1)[0]!.token;
        if (token !== stop) greedy.push(token);
      }
      const setting = { width: 1, lengthPenalty: 1, earlyStopping: true };
      const { hypotheses } = search(model, {
        ...setting,
        maxTokens: 12,
        stopTokens: new Set([stop]),
      });
      expect(hypotheses[0]!.tokens).toEqual(greedy);
      expect(hypotheses[0]!.finishReason).toBe(greedy.length < 12 ? "stop" : "length");
    }
  });

  it("finds the best of all sequences when it is as wide as the tree", () => {
    const model = createModel(7, 4);
    const all = [0, 1, 2, 3].flatMap((a) => [0, 1, 2, 3].map((b) => [a, b]));
    const best = all.sort((a, b) => sum(model, b) - sum(model, a))[0];
    const setting = { width: 4, lengthPenalty: 1, earlyStopping: "never" } as const;
    const { hypotheses } = search(model, { ...setting, maxTokens: 2, stopTokens: new Set() });
    expect(hypotheses[0]!.tokens).toEqual(best);
  });
});

describe("a step of beam search", () => {
  const STOP = 9;

  function create(params: Partial<BeamSearchParams> = {}, maxTokens = 10): BeamSearch {
    const defaults = { width: 2, lengthPenalty: 1, earlyStopping: false } as const;
    return new BeamSearch({ ...defaults, ...params }, { maxTokens, stopTokens: new Set([STOP]) });
  }

  it("ranks the candidates of all beams, ties to the lower parent and token", () => {
    const beams = create();
    expect(beams.numLive).toBe(1);
    const first = start(beams, [
      { token: 2, logprob: -1 },
      { token: 1, logprob: -1 },
      { token: 3, logprob: -2 },
    ]);
    expect(first).toEqual([
      { parent: 0, token: 1, cumulativeLogprob: -1 },
      { parent: 0, token: 2, cumulativeLogprob: -1 },
    ]);
    const second = beams.advance([
      [
        { token: 7, logprob: -2 },
        { token: 6, logprob: -3 },
      ],
      [
        { token: 5, logprob: -2 },
        { token: 4, logprob: -2.5 },
      ],
    ]);
    expect(second.map(({ parent, token }) => [parent, token])).toEqual([
      [0, 7],
      [1, 5],
    ]);
  });

  it("may continue one beam twice and drop another", () => {
    const beams = create();
    start(beams, [
      { token: 1, logprob: -0.1 },
      { token: 2, logprob: -5 },
    ]);
    const moves = beams.advance([
      [
        { token: 3, logprob: -1 },
        { token: 4, logprob: -1.5 },
      ],
      [{ token: 5, logprob: -0.1 }],
    ]);
    expect(moves.map(({ parent, token }) => [parent, token])).toEqual([
      [0, 3],
      [0, 4],
    ]);
  });

  it("ends hypotheses at stop tokens within the first ranks only", () => {
    const beams = create();
    start(beams, [
      { token: 1, logprob: -1 },
      { token: 2, logprob: -1.1 },
      { token: STOP, logprob: -1.2 }, // third of two: ignored
    ]);
    expect(beams.hypotheses(2)).toEqual([]);
    beams.advance([
      [
        { token: 3, logprob: -0.2 },
        { token: STOP, logprob: -0.5 },
      ],
      [
        { token: 4, logprob: -0.6 },
        { token: 5, logprob: -0.7 },
      ],
    ]);
    expect(beams.hypotheses(2)).toEqual([
      { tokens: [1], cumulativeLogprob: -1.5, score: -0.75, finishReason: "stop", stopToken: STOP },
    ]);
    expect(beams.numLive).toBe(2);
  });

  it.each([
    // Two hypotheses of -1 and -1.2 a token at length 1, the best live beam -2 at length 1 of 4.
    { earlyStopping: true, lengthPenalty: 1, done: true },
    { earlyStopping: false, lengthPenalty: 1, done: true },
    // -2 / 4 = -0.5 would still be better.
    { earlyStopping: "never", lengthPenalty: 1, done: false },
    { earlyStopping: "never", lengthPenalty: 0, done: true },
    // A penalty below 0 makes longer ones worse.
    { earlyStopping: "never", lengthPenalty: -1, done: true },
  ] as const)(
    "with early stopping $earlyStopping and penalty $lengthPenalty: done = $done",
    ({ done, ...params }) => {
      const beams = new BeamSearch(
        { width: 2, ...params },
        { maxTokens: 4, stopTokens: new Set([8, 9]) },
      );
      const moves = start(beams, [
        { token: 8, logprob: -1 },
        { token: 9, logprob: -1.2 },
        { token: 1, logprob: -2 },
        { token: 2, logprob: -3 },
      ]);
      expect(beams.isDone).toBe(done);
      expect(moves).toHaveLength(done ? 0 : 2);
    },
  );

  it("ends when live beams can only equal what is finished", () => {
    const params = { width: 2, lengthPenalty: 1, earlyStopping: false };
    const beams = new BeamSearch(params, { maxTokens: 9, stopTokens: new Set([8, 9]) });
    start(beams, [
      { token: 8, logprob: -1 },
      { token: 9, logprob: -2 },
      { token: 10, logprob: -2 },
      { token: 11, logprob: -3 },
    ]);
    expect(beams.isDone).toBe(true);
  });

  it("goes on without early stopping while a live beam scores better than the worst finished one", () => {
    const params = { width: 2, lengthPenalty: 1, earlyStopping: false };
    const beams = new BeamSearch(params, { maxTokens: 9, stopTokens: new Set([8, 9]) });
    start(beams, [
      { token: 1, logprob: -0.5 },
      { token: 9, logprob: -3 },
      { token: 2, logprob: -4 },
    ]);
    // The second finished one scores -0.6 / 2, but the first's -3 is worse than the live beam's -0.7 / 2.
    beams.advance([
      [
        { token: 9, logprob: -0.1 },
        { token: 3, logprob: -0.2 },
      ],
      [{ token: 4, logprob: -1 }],
    ]);
    expect(beams.isDone).toBe(false);
    expect(beams.hypotheses(2).map(({ score }) => score)).toEqual([-0.3, -3]);
  });

  it("keeps the best finished hypotheses only", () => {
    const beams = create({ width: 1, earlyStopping: "never" }, 3);
    start(beams, [
      { token: STOP, logprob: -1 },
      { token: 1, logprob: -1.2 },
    ]);
    beams.advance([
      [
        { token: STOP, logprob: -0.2 },
        { token: 2, logprob: -0.3 },
      ],
    ]);
    expect(beams.hypotheses(5).map(({ tokens, score }) => [tokens, score])).toEqual([[[1], -0.7]]);
  });

  it("ends live beams as they are: at maxTokens, and when it is told to", () => {
    const candidates = [
      { token: 1, logprob: -1 },
      { token: 2, logprob: -2 },
    ];
    const short = create({}, 1);
    expect(start(short, candidates)).toEqual([]);
    expect(short.isDone).toBe(true);
    expect(short.hypotheses(1)).toEqual([
      { tokens: [1], cumulativeLogprob: -1, score: -1, finishReason: "length" },
    ]);

    const late = create();
    start(late, candidates);
    late.end("deadline");
    expect(late.isDone).toBe(true);
    expect(late.hypotheses(2).map(({ tokens, finishReason }) => [tokens, finishReason])).toEqual([
      [[1], "deadline"],
      [[2], "deadline"],
    ]);
  });

  it("has no hypothesis if it ends before its first step", () => {
    const beams = create();
    beams.end("abort");
    expect([beams.isDone, beams.hypotheses(2)]).toEqual([true, []]);
  });

  it("lives on with fewer beams where a beam's candidates are mostly stop tokens", () => {
    const options = { maxTokens: 9, stopTokens: new Set([7, 8, 9]) };
    const beams = new BeamSearch({ width: 2, lengthPenalty: 1, earlyStopping: "never" }, options);
    const moves = start(beams, [
      { token: 7, logprob: -1 },
      { token: 8, logprob: -1.1 },
      { token: 9, logprob: -1.2 },
      { token: 1, logprob: -1.3 },
    ]);
    expect(moves.map(({ token }) => token)).toEqual([1]);
    expect(beams.numLive).toBe(1);
  });

  it("refuses candidates for another number of beams, and a second start", () => {
    const beams = create();
    start(beams, [
      { token: 1, logprob: -1 },
      { token: 2, logprob: -2 },
    ]);
    expect(() => beams.advance([[]])).toThrow(/2 live beams got candidates for 1/);
  });
});
