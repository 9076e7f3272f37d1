import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nastyStrings } from "../../e2e/oracle/nastyStrings.mjs";
import { Detokenizer } from "./detokenizer.ts";
import { createTokenizer } from "./tokenizer.ts";

const read = (name: string) =>
  createTokenizer(
    new Map(
      Object.entries(
        JSON.parse(readFileSync(new URL(`./fixtures/${name}.json`, import.meta.url), "utf8")),
      ),
    ),
  );
const bpe = read("bpe");
const spm = read("spm");

/** Decodes all bytes at once, without the code under test. */
function decodeAtOnce(tokenizer: typeof bpe, ids: readonly number[]): string {
  const bytes = ids
    .filter((id) => !tokenizer.isControl(id))
    .flatMap((id) => [...tokenizer.tokenBytes(id)]);
  const start = tokenizer.addSpacePrefix && bytes[0] === 0x20 ? 1 : 0;
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes.slice(start)));
}

describe.each([
  ["gpt2", bpe],
  ["llama", spm],
])("%s", (_, tokenizer) => {
  const anyIds = fc.array(fc.nat(tokenizer.vocabularySize - 1), { maxLength: 60 });

  test("tokens one by one make the text of all at once", () => {
    fc.assert(
      fc.property(anyIds, (ids) => {
        const detokenizer = new Detokenizer(tokenizer);
        const text = ids.map((id) => detokenizer.push(id)).join("") + detokenizer.finish();
        expect(text).toBe(decodeAtOnce(tokenizer, ids));
        expect(tokenizer.decode(ids)).toBe(text);
      }),
      { numRuns: 500 },
    );
  });

  test("U+FFFD never shows for a character that is spread over tokens", () => {
    for (const text of nastyStrings(42, 500)) {
      // "<0xFF>" written out may be the token of that byte, in llama.cpp too.
      if (/[\uFFFD\p{Surrogate}]|<0x/u.test(text)) continue;
      const detokenizer = new Detokenizer(tokenizer);
      const pieces = tokenizer.encode(text).map((id) => detokenizer.push(id));
      expect(pieces.join("")).not.toContain("\uFFFD");
      expect(detokenizer.finish()).toBe("");
    }
  });

  test("control tokens have no text", () => {
    for (const id of tokenizer.controlTexts.values()) {
      expect(new Detokenizer(tokenizer).push(id)).toBe("");
    }
  });
});

/** Tokens that are the bytes of the vocabulary. */
const byteIds = new Map(
  Array.from({ length: bpe.vocabularySize }, (_, id) => [id, bpe.tokenBytes(id)] as const)
    .filter(([, bytes]) => bytes.length === 1)
    .map(([id, [byte]]) => [byte, id]),
);
const pushBytes = (detokenizer: Detokenizer, ...bytes: number[]) =>
  bytes.map((byte) => detokenizer.push(byteIds.get(byte)!));

test("a character appears with its last byte", () => {
  expect(pushBytes(new Detokenizer(bpe), 0xf0, 0x9f, 0x98, 0x80, 0x21)).toEqual([
    "",
    "",
    "",
    "😀",
    "!",
  ]);
});

test("bytes that can't become a character appear as U+FFFD as soon as that is sure", () => {
  expect(pushBytes(new Detokenizer(bpe), 0xe2, 0x41, 0xff, 0x80)).toEqual([
    "",
    "\uFFFDA",
    "\uFFFD",
    "\uFFFD",
  ]);
});

test("finish lets an unfinished character out as U+FFFD", () => {
  const detokenizer = new Detokenizer(bpe);
  expect(pushBytes(detokenizer, 0x41, 0xe2, 0x82)).toEqual(["A", "", ""]);
  expect(detokenizer.finish()).toBe("\uFFFD");
});

test("U+FEFF at the start stays", () => {
  expect(bpe.decode(bpe.encode("\uFEFFa"))).toBe("\uFEFFa");
  expect(spm.decode(spm.encode("\uFEFFa"))).toBe("\uFEFFa");
});

test("the space before a first word belongs to a text that goes on", () => {
  const ids = spm.encode("the");
  const first = new Detokenizer(spm);
  expect(ids.map((id) => first.push(id)).join("")).toBe("the");
  const next = new Detokenizer(spm, { continuesText: true });
  expect(ids.map((id) => next.push(id)).join("")).toBe(" the");
});

test("a long text takes time in proportion to its length", () => {
  const ids = bpe.encode("The ferryman counted 😀 twice.\n").concat(bpe.encode(" and again"));
  const time = (tokens: number[]) => {
    const start = performance.now();
    bpe.decode(tokens);
    return performance.now() - start;
  };
  const many = (times: number) => Array.from({ length: times }, () => ids).flat();
  time(many(1000));
  const once = Math.max(time(many(1000)), 5);
  expect(time(many(10_000))).toBeLessThan(once * 40); // quadratic: 100 times
});
