import { QuireError } from "../errors.ts";
import type { LoadedParts } from "./loadedModel.ts";
import type { GenerateRequest } from "./protocol.ts";

// What only the worker can check or do: it has the tokenizer.

/** Token ids of a request's prompt. Throws `chat-template`, `invalid-argument`. */
export function encodePrompt(
  { prompt }: GenerateRequest,
  { tokenizer, chatTemplate }: Pick<LoadedParts, "tokenizer" | "chatTemplate">,
): readonly number[] {
  switch (prompt.kind) {
    case "chat":
      return chatTemplate.encode(prompt.messages, { addGenerationPrompt: true });
    case "tokens":
      return prompt.tokens;
    case "text": {
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

/** Most tokens that a sequence can have after its prompt: what context and KV pool leave, at least 1. */
export function roomFor(
  promptTokens: number,
  { plan, maxContext, blockSize }: Pick<LoadedParts, "plan" | "maxContext" | "blockSize">,
): number {
  const most = Math.min(maxContext, plan.numBlocks * blockSize);
  return Math.max(1, most - promptTokens);
}
