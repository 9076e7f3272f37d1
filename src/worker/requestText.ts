import type { SequenceOutput } from "../engine/sequenceOutput.ts";
import type { TokenScore } from "../engine/step.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { GenerateRequest, WirePromptLogprob, WireUsage } from "./protocol.ts";
import { SequenceText, type TextDelta } from "./sequenceText.ts";
import { tokenText } from "./tokenText.ts";

/** The text side of one request: its samples and, at the end, its usage. */
export class RequestText {
  readonly #sequences: readonly SequenceText[];
  readonly #tokenizer: Tokenizer;
  readonly #promptTokens: readonly number[];
  #cachedTokens = 0;

  constructor(tokenizer: Tokenizer, request: GenerateRequest, promptTokens: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#promptTokens = promptTokens;
    this.#sequences = Array.from(
      { length: request.n },
      (_, index) => new SequenceText(tokenizer, request, index),
    );
  }

  /** Undefined for a sample that has ended already. The delta that ends the request has its usage. */
  push(output: SequenceOutput): TextDelta | undefined {
    const sequence = this.#sequences[output.index]!;
    if (sequence.isFinished) return undefined;
    // The samples after the first find its prompt in the pool: only the first says what was there before.
    if (output.index === 0) this.#cachedTokens = output.cachedTokens;
    const { delta, hitStopString } = sequence.push(output);
    const { promptScores } = output;
    const promptLogprobs = promptScores && { promptLogprobs: this.#promptLogprobs(promptScores) };
    const hasEnded = this.#sequences.every(({ isFinished }) => isFinished);
    const usage = hasEnded ? { usage: this.#usage() } : {};
    return { delta: { ...delta, ...promptLogprobs, ...usage }, hitStopString };
  }

  #promptLogprobs(scores: readonly TokenScore[]): readonly WirePromptLogprob[] {
    const entry = (token: number, logprob: number, rank: number) => {
      return { token, text: tokenText(this.#tokenizer, token).text, logprob, rank };
    };
    return scores.map(({ logprob, rank, top }, i) => {
      const own = this.#promptTokens[i + 1]!;
      const best = top.map((other, place) => entry(other.token, other.logprob, place + 1));
      return [entry(own, logprob, rank), ...best.filter(({ token }) => token !== own)];
    });
  }

  #usage(): WireUsage {
    return {
      promptTokens: this.#promptTokens.length,
      completionTokens: this.#sequences.reduce((sum, { numTokens }) => sum + numTokens, 0),
      cachedTokens: this.#cachedTokens,
    };
  }
}
