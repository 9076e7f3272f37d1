import type { SequenceOutput } from "../engine/sequenceOutput.ts";
import type { TokenScore } from "../engine/step.ts";
import { QuireError } from "../errors.ts";
import type { AnswerMemory } from "../text/answerMemory.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { GenerateRequest, WirePromptLogprob, WireUsage } from "./protocol.ts";
import { SequenceText, type TextDelta } from "./sequenceText.ts";
import { tokenText } from "./tokenText.ts";

/** What an output became for the page. */
export interface RequestDelta extends TextDelta {
  /** True with the request's last output. */
  readonly hasEnded: boolean;
  /** What the request failed with; with its last output only. */
  readonly error?: QuireError;
}

/** The text side of one request: its samples and, at the end, its usage or why it failed. */
export class RequestText {
  readonly #sequences: readonly SequenceText[];
  readonly #tokenizer: Tokenizer;
  readonly #promptTokens: readonly number[];
  readonly #request: GenerateRequest;
  #cachedTokens = 0;
  /** What the first sample to fail failed with. */
  #failure: QuireError | undefined;

  constructor(tokenizer: Tokenizer, request: GenerateRequest, promptTokens: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#promptTokens = promptTokens;
    this.#request = request;
    this.#sequences = Array.from(
      { length: request.n },
      (_, index) => new SequenceText(tokenizer, request, index),
    );
  }

  /** Undefined for a sample that has ended already. The delta that ends the request has its usage. */
  push(output: SequenceOutput): RequestDelta | undefined {
    const sequence = this.#sequences[output.index]!;
    if (sequence.isFinished) return undefined;
    // The samples after the first find its prompt in the pool: only the first says what was there before.
    if (output.index === 0) this.#cachedTokens = output.cachedTokens;
    const { delta, hitStopString } = sequence.push(output);
    if (sequence.isFinished && delta.finish === undefined) {
      this.#failure ??= output.finishReason === "error" ? noNumber() : this.#deadlineError();
    }
    const { promptScores } = output;
    const promptLogprobs = promptScores && { promptLogprobs: this.#promptLogprobs(promptScores) };
    const hasEnded = this.#sequences.every(({ isFinished }) => isFinished);
    const error = hasEnded && this.#failure !== undefined ? { error: this.#failure } : undefined;
    const usage = hasEnded && error === undefined ? { usage: this.#usage() } : undefined;
    return { delta: { ...delta, ...promptLogprobs, ...usage }, hitStopString, hasEnded, ...error };
  }

  /** Puts what the samples of a chat have said into the memory: a later request may hold it. */
  rememberIn(memory: AnswerMemory): void {
    const after = this.#promptTokens.at(-1);
    if (this.#request.prompt.kind !== "chat" || after === undefined) return;
    for (const { generated } of this.#sequences) {
      if (generated === undefined) continue;
      const { text, tokens, ends } = generated;
      memory.remember({ text, tokens, after }, ends, this.#request.cacheSalt ?? "");
    }
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

  #deadlineError(): QuireError {
    const { deadlineMs = 0 } = this.#request;
    const message = `The request did not end within its ${deadlineMs} ms. What it has so far is in \`data.choices\`: use that, or raise \`deadline_ms\`.`;
    return new QuireError("deadline-exceeded", message, { deadlineMs });
  }

  #usage(): WireUsage {
    return {
      promptTokens: this.#promptTokens.length,
      completionTokens: this.#sequences.reduce((sum, { numTokens }) => sum + numTokens, 0),
      cachedTokens: this.#cachedTokens,
    };
  }
}

function noNumber(): QuireError {
  return new QuireError(
    "adapter-numerics",
    'The model has no next token: none of its logits is a finite number. Its file may be damaged, or the GPU computes wrong. Try another file of the model, or `backend: "wasm"`.',
  );
}
