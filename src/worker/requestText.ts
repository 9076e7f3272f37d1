import type { SequenceOutput } from "../engine/sequenceOutput.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { GenerateRequest, WireUsage } from "./protocol.ts";
import { SequenceText, type TextDelta } from "./sequenceText.ts";

/** The text side of one request: its samples and, at the end, its usage. */
export class RequestText {
  readonly #sequences: readonly SequenceText[];
  readonly #promptTokens: number;
  #cachedTokens = 0;

  constructor(tokenizer: Tokenizer, request: GenerateRequest, promptTokens: number) {
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
    const result = sequence.push(output);
    if (!this.#sequences.every(({ isFinished }) => isFinished)) return result;
    return { ...result, delta: { ...result.delta, usage: this.#usage() } };
  }

  #usage(): WireUsage {
    return {
      promptTokens: this.#promptTokens,
      completionTokens: this.#sequences.reduce((sum, { numTokens }) => sum + numTokens, 0),
      cachedTokens: this.#cachedTokens,
    };
  }
}
