import { QuireError } from "../errors.ts";
import type { AnswerMemory } from "../text/answerMemory.ts";
import { checkPromptLength } from "../text/promptLength.ts";
import type { LoadedParts } from "./loadedModel.ts";
import type { GenerateRequest } from "./protocol.ts";

// What only the worker can check or do: it has the tokenizer.

/**
 * Token ids of a request's prompt. A chat's turns that were generated here become the ids that they were
 * generated as. Throws `chat-template`, `context-overflow`, `invalid-argument`.
 */
export function encodePrompt(
  { prompt, cacheSalt = "" }: GenerateRequest,
  {
    tokenizer,
    chatTemplate,
    maxContext,
  }: Pick<LoadedParts, "tokenizer" | "chatTemplate" | "maxContext">,
  answers: AnswerMemory,
): readonly number[] {
  switch (prompt.kind) {
    case "chat":
      return chatTemplate.encode(prompt.messages, {
        addGenerationPrompt: true,
        maxTokens: maxContext,
        recall: (text) => answers.recall(text, cacheSalt),
      });
    case "tokens":
      return prompt.tokens;
    case "text": {
      checkPromptLength(prompt.text, maxContext, tokenizer);
      // A raw prompt is its author's own: control tokens in it are meant, as in llama.cpp and vLLM.
      const tokens = tokenizer.encode(prompt.text, { specialTokens: true });
      const { addBos, bosToken } = tokenizer;
      const isMissing = addBos && bosToken !== undefined && tokens[0] !== bosToken;
      return isMissing ? [bosToken, ...tokens] : tokens;
    }
  }
}

/** Throws `invalid-argument` for ids that the model does not have. */
export function checkRequestTokenIds(
  { stopTokenIds, sampling }: GenerateRequest,
  promptTokens: readonly number[],
  vocabularySize: number,
): void {
  for (const [i, id] of promptTokens.entries()) checkTokenId(id, `prompt[${i}]`, vocabularySize);
  for (const [i, id] of stopTokenIds.entries()) {
    checkTokenId(id, `stop_token_ids[${i}]`, vocabularySize);
  }
  for (const [id] of sampling.logitBias) checkTokenId(id, "logit_bias", vocabularySize);
}

export function checkTokenId(id: number, field: string, vocabularySize: number): void {
  if (id < vocabularySize) return;
  const allowed = `0 to ${vocabularySize - 1}`;
  const message = `\`${field}\` is the token id ${id}; the model's ids are ${allowed}.`;
  throw new QuireError("invalid-argument", message, { field, found: id, allowed });
}

/**
 * Most tokens that a sequence can have after its prompt: what context and KV pool leave, at least 1. So
 * many beams share the prompt's full blocks alone.
 */
export function roomFor(
  promptTokens: number,
  numBeams: number,
  { numBlocks, maxContext, blockSize }: Pick<LoadedParts, "numBlocks" | "maxContext" | "blockSize">,
): number {
  const shared = Math.floor(promptTokens / blockSize);
  const blocks = shared + Math.floor((numBlocks - shared) / numBeams);
  const most = Math.min(maxContext, blocks * blockSize);
  return Math.max(1, most - promptTokens);
}
