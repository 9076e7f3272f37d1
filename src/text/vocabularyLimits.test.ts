import { expect, test } from "vitest";
import { QuireError } from "../errors.ts";
import { createTokenizer } from "./tokenizer.ts";
import { VOCABULARY_LIMITS } from "./vocabularyLimits.ts";

const { tokenLength, markedLength, squaredLengths } = VOCABULARY_LIMITS;

const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;
const BYTES = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);

/** A vocabulary of the byte tokens and these, all of one type. */
function create(model: "gpt2" | "llama", texts: readonly string[], type: number) {
  const tokens = [...BYTES, ...texts];
  return createTokenizer(
    new Map<string, unknown>([
      ["tokenizer.ggml.model", model],
      ["tokenizer.ggml.pre", "gpt-2"],
      ["tokenizer.ggml.tokens", tokens],
      ["tokenizer.ggml.token_type", tokens.map((_, id) => (id < 256 ? BYTE : type))],
      ["tokenizer.ggml.merges", []],
      ["tokenizer.ggml.scores", new Float32Array(tokens.length)],
    ]),
  );
}

/** Distinct texts of one length. */
const texts = (count: number, length: number): string[] =>
  Array.from({ length: count }, (_, i) => `${i}`.padEnd(length, "x"));

function expectLimit(run: () => unknown, limit: keyof typeof VOCABULARY_LIMITS): void {
  const start = performance.now();
  let thrown: unknown;
  try {
    run();
  } catch (error) {
    thrown = error;
  }
  const maximum = VOCABULARY_LIMITS[limit];
  expect(thrown).toBeInstanceOf(QuireError);
  expect(thrown).toMatchObject({ code: "gguf-limit", data: { limit, maximum } });
  expect((thrown as QuireError).message).toContain(`${limit} = ${maximum}`);
  expect(performance.now() - start).toBeLessThan(2000);
}

test.each(["gpt2", "llama"] as const)("%s: one token of megabytes", (model) => {
  for (const type of [NORMAL, CONTROL, USER_DEFINED]) {
    expectLimit(() => create(model, texts(1, 2 ** 24), type), "tokenLength");
    expectLimit(() => create(model, texts(1, tokenLength + 1), type), "tokenLength");
  }
});

test("many long control or user-defined tokens", () => {
  const count = markedLength / tokenLength;
  for (const type of [CONTROL, USER_DEFINED]) {
    expectLimit(() => create("gpt2", texts(count + 1, tokenLength), type), "markedLength");
  }
  expect(create("gpt2", texts(count, tokenLength), CONTROL).controlTexts.size).toBe(count);
  // What plain text may become costs BPE nothing.
  expect(create("gpt2", texts(count + 1, tokenLength), NORMAL).vocabularySize).toBe(
    256 + count + 1,
  );
});

test("many long SentencePiece tokens", () => {
  expectLimit(() => create("llama", texts(4000, tokenLength), NORMAL), "squaredLengths");
  const count = squaredLengths / 256 ** 2 - 1; // the byte tokens take less than one of them
  const start = performance.now();
  expect(create("llama", texts(count, 256), NORMAL).vocabularySize).toBe(256 + count);
  expect(performance.now() - start).toBeLessThan(5000);
});

test("vocabularies larger than any known one are within the limits", () => {
  const sounds = Array.from({ length: 65_536 }, (_, i) => `<|s_${i}|>`);
  expect(create("gpt2", sounds, USER_DEFINED).vocabularySize).toBe(256 + sounds.length);
  expect(create("llama", texts(262_144, 12), NORMAL).vocabularySize).toBe(256 + 262_144);
});
