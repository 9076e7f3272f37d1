import type { SequenceOutput } from "../engine/sequenceOutput.ts";
import type { TokenLogprobs } from "../engine/step.ts";
import { Detokenizer } from "../text/detokenizer.ts";
import { StopStrings } from "../text/stopStrings.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { GenerateRequest, SequenceDelta, WireLogprob, WireTokenText } from "./protocol.ts";
import { tokenText } from "./tokenText.ts";

/** What the tokens of an output became. */
export interface TextDelta {
  readonly delta: SequenceDelta;
  /** True when a stop string matched and the engine does not know yet that the sequence has ended. */
  readonly hitStopString: boolean;
}

/** Turns one sequence's tokens into text as they come: split characters, stop strings, log-probabilities. */
export class SequenceText {
  readonly #tokenizer: Tokenizer;
  readonly #request: GenerateRequest;
  readonly #index: number;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopStrings;
  /** UTF-16 units that have left the detokenizer. */
  #offset = 0;
  #numTokens = 0;
  #isFinished = false;

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
    return this.#numTokens;
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
      const piece = this.#detokenizer.push(token);
      this.#offset += piece.length;
      const passed = this.#stops.push(piece);
      text += passed.text;
      stop = passed.stop;
      if (stop !== undefined) break;
    }
    const hasEnded = output.finishReason !== undefined;
    if (hasEnded && stop === undefined) {
      const passed = this.#stops.push(this.#detokenizer.finish());
      text += passed.text;
      stop = passed.stop;
      if (stop === undefined) text += this.#stops.finish();
    }
    this.#numTokens += tokens.length;
    this.#isFinished = hasEnded || stop !== undefined;
    const finish = this.#isFinished ? { finish: this.#finish(output, stop) } : {};
    const withLogprobs = logprobs.length > 0 ? { logprobs } : {};
    return {
      delta: { requestId, index: this.#index, text, tokens, ...withLogprobs, ...finish },
      hitStopString: stop !== undefined && !hasEnded,
    };
  }

  #finish(output: SequenceOutput, stop: string | undefined): SequenceDelta["finish"] {
    if (stop !== undefined) return { reason: "stop", stop };
    if (output.finishReason === "length") return { reason: "length", stop: null };
    const { stopToken } = output;
    const wasAsked = stopToken !== undefined && this.#request.stopTokenIds.includes(stopToken);
    return { reason: "stop", stop: wasAsked ? stopToken : null };
  }

  #logprob(token: number, { logprob, top }: TokenLogprobs): WireLogprob {
    return {
      ...this.#tokenText(token, logprob),
      top: top.map((entry) => this.#tokenText(entry.token, entry.logprob)),
      offset: this.#offset,
    };
  }

  #tokenText(token: number, logprob: number): WireTokenText {
    return { ...tokenText(this.#tokenizer, token), logprob };
  }
}
