import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkPromptLength } from "./promptLength.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

function readTokenizer(name: string): Tokenizer {
  const path = new URL(`./fixtures/${name}.json`, import.meta.url);
  return createTokenizer(new Map(Object.entries(JSON.parse(readFileSync(path, "utf8")))));
}

describe.each(["bpe", "spm"])("what fits is never refused: %s", (name) => {
  const tokenizer = readTokenizer(name);
  const ids = Array.from({ length: tokenizer.vocabularySize }, (_, id) => id);
  const texts = ids.map((id) => tokenizer.decode([id]) || tokenizer.tokenText(id));
  const expectAccepted = (text: string, specialTokens: boolean) => {
    const { length } = tokenizer.encode(text, { specialTokens });
    expect(() => checkPromptLength(text, length, tokenizer)).not.toThrow();
  };

  test("each token's text", () => {
    for (const text of texts) expectAccepted(text, true);
  });

  test("any text", () => {
    const parts = fc.array(fc.oneof(fc.constantFrom(...texts), fc.string({ unit: "binary" })));
    fc.assert(
      fc.property(parts, fc.boolean(), (all, special) => expectAccepted(all.join(""), special)),
    );
  });
});

test("the longest of all tokens counts: a text of nothing else fits just so", () => {
  const longest = "<|the longest of all|>";
  const tokenizer = createTokenizer(
    new Map<string, unknown>([
      ["tokenizer.ggml.model", "gpt2"],
      ["tokenizer.ggml.tokens", ["a", longest, "b"]],
      ["tokenizer.ggml.token_type", [1, 3, 1]],
      ["tokenizer.ggml.merges", []],
    ]),
  );
  const text = longest.repeat(5);
  expect(tokenizer.encode(text, { specialTokens: true })).toHaveLength(5);
  expect(() => checkPromptLength(text, 5, tokenizer)).not.toThrow();
  expect(() => checkPromptLength(`${text}a`, 5, tokenizer)).toThrow(/context of 5 tokens/);
});

test("what can't fit is refused, with the numbers", () => {
  const tokenizer = { longestToken: 6 };
  expect(() => checkPromptLength("x".repeat(60), 10, tokenizer)).not.toThrow();
  expect(() => checkPromptLength("x".repeat(61), 10, tokenizer)).toThrow(
    expect.objectContaining({
      code: "context-overflow",
      message: expect.stringMatching(/61 characters; the context of 10 tokens holds 60/),
      data: { promptLength: 61, maxLength: 60, maxContext: 10 },
    }),
  );
});
