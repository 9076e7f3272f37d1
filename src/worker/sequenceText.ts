import type { SequenceOutput } from "../engine/sequenceOutput.ts";
import type { TokenLogprobs } from "../engine/step.ts";
import { Detokenizer } from "../text/detokenizer.ts";
import { type StopResult, StopStrings } from "../text/stopStrings.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type {
  GenerateRequest,
  SequenceDelta,
  SequenceFinish,
  WireLogprob,
  WireTokenText,
} from "./protocol.ts";
import { tokenText } from "./tokenText.ts";

/** What the tokens of an output became. */
export interface TextDelta {
  readonly delta: SequenceDelta;
  /** True when a stop string matched and the engine does not know yet that the sequence has ended. */
  readonly hitStopString: boolean;
}

/** What a sequence has generated. */
export interface Generated {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly ends: readonly number[];
}

/** Turns one sequence's tokens into text as they come: split characters, stop strings, log-probabilities. */
export class SequenceText {
  readonly #tokenizer: Tokenizer;
  readonly #request: GenerateRequest;
  readonly #index: number;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopStrings;
  readonly #tokens: number[] = [];
  /** UTF-16 units that had left the detokenizer after each token. */
  readonly #ends: number[] = [];
  /** All that has left the detokenizer. */
  #text = "";
  #isFinished = false;
  #hitStopString = false;

  constructor(tokenizer: Tokenizer, request: GenerateRequest, index: number) {
    this.#tokenizer = tokenizer;
    this.#request = request;
    this.#index = index;
    // An answer starts a text of its own; a plain completion goes on with the prompt's.
    const continuesText = request.prompt.kind !== "chat";
    this.#detokenizer = new Detokenizer(tokenizer, { continuesText });
    this.#stops = new StopStrings(request.stop);
  }

  get isFinished(): boolean {
    return this.#isFinished;
  }

  /** Tokens taken so far; those past a stop string are not among them. */
  get numTokens(): number {
    return this.#tokens.length;
  }

  /**
   * Text and tokens so far, and how long the text was after each token. Undefined where the tokens say
   * more than the text: after a stop string, and with control tokens among them.
   */
  get generated(): Generated | undefined {
    if (this.#hitStopString || this.#tokens.some((id) => this.#tokenizer.isControl(id))) {
      return undefined;
    }
    return { text: this.#text, tokens: this.#tokens, ends: this.#ends };
  }

  push(output: SequenceOutput): TextDelta {
    const { requestId } = this.#request;
    const tokens: number[] = [];
    const logprobs: WireLogprob[] = [];
    let text = "";
    let stop: string | undefined;
    for (const [i, token] of output.tokens.entries()) {
      tokens.push(token);
      const found = output.logprobs?.[i];
      if (found !== undefined) logprobs.push(this.#logprob(token, found));
      const passed = this.#pass(this.#detokenizer.push(token));
      this.#tokens.push(token);
      this.#ends.push(this.#text.length);
      text += passed.text;
      stop = passed.stop;
      if (stop !== undefined) break;
    }
    const hasEnded = output.finishReason !== undefined;
    if (hasEnded && stop === undefined) {
      const passed = this.#pass(this.#detokenizer.finish());
      text += passed.text;
      stop = passed.stop;
      if (stop === undefined) text += this.#stops.finish();
    }
    this.#hitStopString = stop !== undefined;
    this.#isFinished = hasEnded || this.#hitStopString;
    const finish = this.#isFinished ? this.#finish(output, stop) : undefined;
    return {
      delta: {
        requestId,
        index: this.#index,
        text,
        tokens,
        ...(logprobs.length > 0 ? { logprobs } : {}),
        ...(finish === undefined ? {} : { finish }),
      },
      hitStopString: this.#hitStopString && !hasEnded,
    };
  }

  #pass(piece: string): StopResult {
    this.#text += piece;
    return this.#stops.push(piece);
  }

  /** Undefined for a sequence that its deadline or a failure ended. */
  #finish(output: SequenceOutput, stop: string | undefined): SequenceFinish | undefined {
    const { finishReason, stopToken, cumulativeLogprob } = output;
    if (stop !== undefined) return { reason: "stop", stop };
    if (finishReason === "deadline" || finishReason === "error") return undefined;
    const score = cumulativeLogprob === undefined ? {} : { cumulativeLogprob };
    if (finishReason === "length") return { reason: "length", stop: null, ...score };
    const wasAsked = stopToken !== undefined && this.#request.stopTokenIds.includes(stopToken);
    return { reason: "stop", stop: wasAsked ? stopToken : null, ...score };
  }

  #logprob(token: number, { logprob, top }: TokenLogprobs): WireLogprob {
    return {
      ...this.#tokenText(token, logprob),
      top: top.map((entry) => this.#tokenText(entry.token, entry.logprob)),
      offset: this.#text.length,
    };
  }

  #tokenText(token: number, logprob: number): WireTokenText {
    return { ...tokenText(this.#tokenizer, token), logprob };
  }
}
