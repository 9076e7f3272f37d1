import { createRandom, type Random, shuffle } from "./random.ts";

/** Leading tokens that several requests have in common: a system prompt, examples, a document. */
export interface SharedPrefix {
  readonly id: number;
  readonly tokens: number;
}

/** A request of a trace. Its output length is forced, as in the paper's benchmark. */
export interface LabRequest {
  /** Place in the trace, from 0. */
  readonly index: number;
  /** Number of the first of its sequences among all of the trace. */
  readonly firstSequence: number;
  readonly arrivalMs: number;
  readonly promptTokens: number;
  /** Of each of its sequences. At least 1. */
  readonly outputTokens: number;
  /** Samples, or beams. */
  readonly width: number;
  readonly isBeam: boolean;
  readonly prefix: SharedPrefix | undefined;
}

/** In order of arrival. */
export type Trace = readonly LabRequest[];

/** Prompt and output lengths: independent lognormals, rounded, at least 1. */
export interface LengthSpec {
  readonly name: string;
  /** Tokens, of the distribution before `maxTokens` cuts it. */
  readonly meanPrompt: number;
  readonly cvPrompt: number;
  readonly meanOutput: number;
  readonly cvOutput: number;
  /** Pairs with `maxTokens` in all, or more, are drawn again. */
  readonly maxTokens: number;
}

/**
 * The paper gives the means (161.31 and 337.99 tokens; cut at 2048) and draws the histograms; the spreads
 * are the ones with which others reproduced its figures.
 */
export const SHAREGPT: LengthSpec = {
  name: "sharegpt",
  meanPrompt: 161.31,
  cvPrompt: 1.6,
  meanOutput: 337.99,
  cvOutput: 1.0,
  maxTokens: 2048,
};

/** As `SHAREGPT`; the paper's means are 19.31 and 58.45. */
export const ALPACA: LengthSpec = {
  name: "alpaca",
  meanPrompt: 19.31,
  cvPrompt: 0.8,
  meanOutput: 58.45,
  cvOutput: 1.1,
  maxTokens: 2048,
};

/** A sentence of WMT16 English to German and its translation; our estimate, the paper gives no lengths. */
export const WMT16: LengthSpec = {
  name: "wmt16",
  meanPrompt: 35,
  cvPrompt: 0.5,
  meanOutput: 45,
  cvOutput: 0.5,
  maxTokens: 512,
};

/** A question about a document and its answer; ours. */
export const QUESTION: LengthSpec = {
  name: "question",
  meanPrompt: 24,
  cvPrompt: 0.5,
  meanOutput: 64,
  cvOutput: 0.6,
  maxTokens: 512,
};

export interface Lengths {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export function drawLengths(spec: LengthSpec, random: Random): Lengths {
  for (;;) {
    const promptTokens = lognormalTokens(spec.meanPrompt, spec.cvPrompt, random);
    const outputTokens = lognormalTokens(spec.meanOutput, spec.cvOutput, random);
    if (promptTokens + outputTokens < spec.maxTokens) return { promptTokens, outputTokens };
  }
}

/** A lognormal's sigma^2 is ln(1 + cv^2), its mu is ln(mean) - sigma^2 / 2. */
function lognormalTokens(mean: number, cv: number, random: Random): number {
  const variance = Math.log(1 + cv * cv);
  const value = Math.exp(Math.log(mean) - variance / 2 + Math.sqrt(variance) * random.normal());
  return Math.max(1, Math.round(value));
}

/** What part of the requests asks for how many samples, or beams. */
export interface Share {
  readonly part: number;
  readonly width: number;
  readonly isBeam: boolean;
}

export interface TraceOptions {
  readonly seed: number;
  readonly count: number;
  /** Requests a second, Poisson; Infinity: all at the start. */
  readonly rate: number;
  /** Default: one sample each. Parts add up to 1. */
  readonly mixture?: readonly Share[];
}

export const SINGLE: readonly Share[] = [{ part: 1, width: 1, isBeam: false }];

export function parallel(width: number): readonly Share[] {
  return [{ part: 1, width, isBeam: false }];
}

export function beams(width: number): readonly Share[] {
  return [{ part: 1, width, isBeam: true }];
}

/** A little of everything. */
export const MIXED: readonly Share[] = [
  { part: 0.5, width: 1, isBeam: false },
  { part: 0.2, width: 2, isBeam: false },
  { part: 0.1, width: 4, isBeam: false },
  { part: 0.1, width: 2, isBeam: true },
  { part: 0.1, width: 4, isBeam: true },
];

/** Independent requests of these lengths. */
export function independentTrace(spec: LengthSpec, options: TraceOptions): Trace {
  const random = createRandom(options.seed, `lengths ${spec.name}`);
  const lengths = Array.from({ length: options.count }, () => drawLengths(spec, random));
  return assemble(lengths, options);
}

/** Requests that all begin with the same prefix, as translations with the same examples do. */
export function sharedPrefixTrace(
  spec: LengthSpec,
  prefixTokens: number,
  options: TraceOptions,
): Trace {
  const random = createRandom(options.seed, `lengths ${spec.name}`);
  const prefix = { id: 0, tokens: prefixTokens };
  const lengths = Array.from({ length: options.count }, () => {
    const own = drawLengths(spec, random);
    return { ...own, promptTokens: prefixTokens + own.promptTokens, prefix };
  });
  return assemble(lengths, options);
}

/**
 * The paper's chatbot: a conversation's last 1024 tokens are the prompt, at most 1024 are answered. Each
 * request is a round at a random place of a conversation of ShareGPT-like rounds.
 */
export function chatbotTrace(options: TraceOptions): Trace {
  const random = createRandom(options.seed, "lengths chatbot");
  const maxTokens = 1024;
  const lengths = Array.from({ length: options.count }, () => {
    const rounds = random.integer(CHATBOT_ROUNDS);
    let history = 0;
    for (let i = 0; i < rounds; i++) {
      const round = drawLengths(SHAREGPT, random);
      history += round.promptTokens + round.outputTokens;
    }
    const own = drawLengths(SHAREGPT, random);
    return {
      promptTokens: Math.min(maxTokens, history + own.promptTokens),
      outputTokens: Math.min(maxTokens, own.outputTokens),
    };
  });
  return assemble(lengths, options);
}

/** Rounds of a conversation, 0 to this less one behind the present one; our estimate. */
const CHATBOT_ROUNDS = 8;

export interface DocumentLoad {
  readonly documentTokens: number;
  readonly questionsEach: number;
  /** Documents that are asked about at the same time. */
  readonly documentsAtOnce: number;
}

/** Questions about long documents: those about a few documents mixed, then those about the next few. */
export function documentTrace(load: DocumentLoad, options: TraceOptions): Trace {
  const random = createRandom(options.seed, "lengths documents");
  const { documentTokens, questionsEach, documentsAtOnce } = load;
  const lengths: (Lengths & { readonly prefix: SharedPrefix })[] = [];
  for (let first = 0; first < options.count; first += questionsEach * documentsAtOnce) {
    const end = Math.min(options.count, first + questionsEach * documentsAtOnce);
    const group = Array.from({ length: end - first }, (_, i) => {
      const own = drawLengths(QUESTION, random);
      const prefix = { id: Math.floor((first + i) / questionsEach), tokens: documentTokens };
      return { ...own, promptTokens: documentTokens + own.promptTokens, prefix };
    });
    lengths.push(...shuffle(group, random));
  }
  return assemble(lengths, options);
}

/** Long prompts among short requests: every `every`-th asks about `longTokens` of text. */
export function longPromptTrace(
  longTokens: number,
  every: number,
  spec: LengthSpec,
  options: TraceOptions,
): Trace {
  const random = createRandom(options.seed, `lengths long ${spec.name}`);
  const lengths = Array.from({ length: options.count }, (_, i) => {
    const own = drawLengths(spec, random);
    return i % every === every - 1 ? { ...own, promptTokens: longTokens } : own;
  });
  return assemble(lengths, options);
}

/** Timestamps are the beginnings of quanta of 10 ms, as in the paper's traces. */
const QUANTUM_MS = 10;

/** Arrivals and widths depend on the seed alone: the same for all rates but for the scale of time. */
function assemble(
  lengths: readonly (Lengths & { readonly prefix?: SharedPrefix })[],
  { seed, rate, mixture = SINGLE }: TraceOptions,
): Trace {
  const arrivals = createRandom(seed, "arrivals");
  const widths = assignWidths(lengths.length, mixture, createRandom(seed, "widths"));
  let seconds = 0;
  let firstSequence = 0;
  return lengths.map(({ promptTokens, outputTokens, prefix }, index) => {
    // The gaps of a Poisson process are exponential.
    seconds -= Math.log(1 - arrivals.uniform()) / rate;
    const { width, isBeam } = widths[index]!;
    const request: LabRequest = {
      index,
      firstSequence,
      arrivalMs: Math.floor((seconds * 1000) / QUANTUM_MS) * QUANTUM_MS,
      promptTokens,
      outputTokens,
      width,
      isBeam,
      prefix,
    };
    firstSequence += width;
    return request;
  });
}

function assignWidths(count: number, mixture: readonly Share[], random: Random): readonly Share[] {
  let sum = 0;
  const widths: Share[] = [];
  for (const share of mixture) {
    sum += share.part;
    while (widths.length < Math.round(sum * count)) widths.push(share);
  }
  return shuffle(widths, random);
}
