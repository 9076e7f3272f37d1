import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CONTROL_TEXTS, nastyStrings } from "../../e2e/oracle/nastyStrings.mjs";
import { QuireError } from "../errors.ts";
import { createTokenizer } from "./tokenizer.ts";

type Fields = Record<string, unknown>;

const readFixture = (name: string): Fields =>
  JSON.parse(readFileSync(new URL(`./fixtures/${name}.json`, import.meta.url), "utf8"));
const BPE: Fields = { ...readFixture("bpe"), "tokenizer.ggml.pre": "smollm" };
const SPM = readFixture("spm");

const create = (fields: Fields) => createTokenizer(new Map(Object.entries(fields)));
const bpe = create(BPE);
const spm = create(SPM);
const both = [
  ["gpt2", bpe],
  ["llama", spm],
] as const;

/** Strings of characters, lone surrogates among them, and control texts. */
const anyText = fc
  .array(fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom(...CONTROL_TEXTS, "\ud800", "  ")))
  .map((parts) => parts.join(""));

const USER_DEFINED = ["<think>", "</think>", "<tool>", "|>cd", "\n\n\n", "   "];

const wellFormed = (text: string) => text.replace(/\p{Surrogate}/gu, "\uFFFD");

function expectRefusal(fields: Fields, code: string, message: RegExp): void {
  let thrown: unknown;
  try {
    create(fields);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(QuireError);
  expect((thrown as QuireError).code).toBe(code);
  expect((thrown as QuireError).message).toMatch(message);
}

describe.each(both)("%s", (_, tokenizer) => {
  test("the empty string has no tokens", () => {
    expect(tokenizer.encode("")).toEqual([]);
    expect(tokenizer.encode("", { specialTokens: true })).toEqual([]);
    expect(tokenizer.decode([])).toBe("");
  });

  test("lone surrogates count as U+FFFD", () => {
    for (const text of ["\ud800", "a\udc00b", "\udc00\ud800", "😀\ud83d"]) {
      expect(tokenizer.encode(text)).toEqual(tokenizer.encode(wellFormed(text)));
    }
    expect(tokenizer.decode(tokenizer.encode("a\ud800b"))).toBe("a\uFFFDb");
  });

  test("decoding gives the text back", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        // Behind a user-defined token SentencePiece adds a space, as llama.cpp does.
        if (tokenizer === spm && USER_DEFINED.some((mark) => text.includes(mark))) return;
        // SentencePiece has one mark for a space and for U+2581.
        const expected = wellFormed(text).replaceAll("\u2581", tokenizer === spm ? " " : "\u2581");
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(expected);
      }),
    );
  });

  test("plain text never yields a control token", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.encode(text).filter(tokenizer.isControl)).toEqual([]);
      }),
    );
  });

  test("control texts are tokens where asked for", () => {
    const id = tokenizer.controlTexts.get("<|im_end|>")!;
    expect(tokenizer.isControl(id)).toBe(true);
    const ids = tokenizer.encode("a<|im_end|><|im_end|>b", { specialTokens: true });
    expect(ids.filter((token) => token === id)).toHaveLength(2);
    expect(tokenizer.encode("<|im_end|>", { specialTokens: true })).toEqual([id]);
    expect(tokenizer.encode("<|im_end|>").length).toBeGreaterThan(1);
  });

  test("user-defined tokens are found in plain text too", () => {
    const ids = tokenizer.encode("a<think>b").map((id) => tokenizer.tokenText(id));
    expect(ids).toContain("<think>");
    expect(tokenizer.decode(tokenizer.encode("<think>"))).toBe("<think>");
  });

  test("ids outside the vocabulary are refused", () => {
    for (const id of [-1, tokenizer.vocabularySize, 0.5, Number.NaN]) {
      expect(() => tokenizer.tokenBytes(id)).toThrow(QuireError);
      expect(() => tokenizer.decode([id])).toThrow(/not in the vocabulary/);
    }
  });

  test("long texts take time in proportion to their length", () => {
    const prose = nastyStrings(99, 400).join(" ");
    const time = (text: string) => {
      const start = performance.now();
      tokenizer.encode(text);
      return performance.now() - start;
    };
    time(prose);
    const once = Math.max(time(prose), 5);
    // Eight times the text; a quadratic algorithm takes 64 times as long.
    expect(time(prose.repeat(8))).toBeLessThan(once * 30);
    expect(time("a".repeat(100_000))).toBeLessThan(10_000);
    expect(time(" ".repeat(100_000))).toBeLessThan(10_000);
  });
});

describe("facts from the metadata", () => {
  test("the start token is added as the file says, else as the kind of tokenizer has it", () => {
    const { "tokenizer.ggml.add_bos_token": _, ...silent } = BPE;
    expect(bpe.addBos).toBe(false);
    expect(create({ ...BPE, "tokenizer.ggml.add_bos_token": true }).addBos).toBe(true);
    expect(create(silent).addBos).toBe(false);
    expect(create({ ...silent, "tokenizer.ggml.pre": "llama-bpe" }).addBos).toBe(true);
    expect(spm.addBos).toBe(true);
    const { "tokenizer.ggml.bos_token_id": __, ...startless } = SPM;
    expect(create(startless)).toMatchObject({ addBos: false, bosToken: undefined });
  });

  test("generation ends at eos, eot and tokens with telling names", () => {
    const texts = (ids: Iterable<number>) => [...ids].map((id) => bpe.tokenText(id)).sort();
    expect(texts(bpe.endTokens)).toEqual(["<|endoftext|>", "<|im_end|>"]);
    const other = create({ ...BPE, "tokenizer.ggml.eot_token_id": 100 });
    expect([...other.endTokens].sort((a, b) => a - b)).toEqual([0, 2, 100]);
  });

  test("a space is put before a text and after marked tokens, unless the file says no", () => {
    const bare = create({ ...SPM, "tokenizer.ggml.add_space_prefix": false });
    expect(spm.addSpacePrefix).toBe(true);
    expect(bare.encode(" x")).toEqual(spm.encode("x"));
    expect(bare.decode(bare.encode(" x"))).toBe(" x");
    expect(spm.decode(spm.encode("x"))).toBe("x");
  });

  test("ids may come as bigints, and the largest uint32 means none", () => {
    const fields = {
      ...BPE,
      "tokenizer.ggml.bos_token_id": 3n,
      "tokenizer.ggml.eos_token_id": 2 ** 32 - 1,
    };
    expect(create(fields)).toMatchObject({ bosToken: 3, eosToken: undefined });
  });

  test("a token named __proto__ is a token", () => {
    const tokens = [...(BPE["tokenizer.ggml.tokens"] as string[])];
    tokens[tokens.length - 1] = "__proto__";
    const merges = ["_ _", "__ p", "__p r", "__pr o", "__pro t", "__prot o", "__proto __"];
    const fields = { ...BPE, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges };
    const ids = create({ ...fields, "tokenizer.ggml.pre": "gpt-2" }).encode("__proto__");
    expect(ids.length).toBeGreaterThan(0);
  });
});

describe("start and end tokens are control tokens", () => {
  const TYPES = "tokenizer.ggml.token_type";
  /** The fields with a token's type changed, and perhaps the token named as one of the ids. */
  const retype = (fields: Fields, text: string, type: number, key?: string): [Fields, number] => {
    const id = (fields["tokenizer.ggml.tokens"] as string[]).indexOf(text);
    const types = [...(fields[TYPES] as number[])];
    types[id] = type;
    const named = key === undefined ? {} : { [`tokenizer.ggml.${key}_token_id`]: id };
    return [{ ...fields, [TYPES]: types, ...named }, id];
  };
  const expectControl = ([fields, id]: [Fields, number], text: string) => {
    const tokenizer = create(fields);
    expect(tokenizer.isControl(id)).toBe(true);
    expect(tokenizer.controlTexts.get(text)).toBe(id);
    expect(tokenizer.encode(`a${text}b`)).not.toContain(id);
    expect(tokenizer.encode(`a${text}b`, { specialTokens: true })).toContain(id);
    expect(tokenizer.tokenBytes(id)).toHaveLength(0);
    return tokenizer;
  };

  test.each([0, 1, 4, 5])("by their name, of type %i in the file", (type) => {
    for (const text of ["<|im_end|>", "<|endoftext|>"]) {
      const changed = retype(BPE, text, type);
      expect(expectControl(changed, text).endTokens.has(changed[1])).toBe(true);
    }
    const changed = retype(SPM, "<|eot_id|>", type);
    expect(expectControl(changed, "<|eot_id|>").endTokens.has(changed[1])).toBe(true);
  });

  test.each(["eos", "eot", "eom"])("as the file's %s, of whatever type", (key) => {
    for (const type of [1, 4]) {
      const changed = retype(BPE, "<tool>", type, key);
      expect(expectControl(changed, "<tool>").endTokens.has(changed[1])).toBe(true);
    }
  });

  test("as the file's bos", () => {
    expectControl(retype(BPE, "<|im_start|>", 4, "bos"), "<|im_start|>");
    const changed = retype(SPM, "<s>", 1, "bos");
    expect(expectControl(changed, "<s>").endTokens.has(changed[1])).toBe(false);
  });

  test("by their name even where merging letters gives it", () => {
    const tokens = [...(BPE["tokenizer.ggml.tokens"] as string[])];
    const id = tokens.indexOf("<tool>");
    tokens[id] = "</s>";
    const merges = ["< /", "s >", "</ s>"];
    const fields = { ...BPE, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges };
    const tokenizer = expectControl(retype(fields, "</s>", 1), "</s>");
    expect(tokenizer.decode(tokenizer.encode("a</s>b"))).toBe("a</s>b");
  });

  test("in a file without types", () => {
    const { [TYPES]: _, ...untyped } = BPE;
    expectControl([untyped, 2], "<|im_end|>");
  });

  test("but not those that texts are made of", () => {
    const pair = (BPE["tokenizer.ggml.merges"] as string[])[0]!;
    for (const [fields, text, written] of [
      [BPE, ",", "a, b"],
      [BPE, "\u010a", "a\nb"],
      [BPE, pair.replace(" ", ""), undefined],
      [SPM, "<0x0A>", "a\nb"],
    ] as const) {
      const [changed, id] = retype(fields, text, fields === SPM ? 6 : 1, "eos");
      const tokenizer = create(changed);
      expect(tokenizer.isControl(id)).toBe(false);
      expect(tokenizer.endTokens.has(id)).toBe(true);
      const sample = written ?? tokenizer.decode([id]);
      expect(tokenizer.decode(tokenizer.encode(sample))).toBe(sample);
    }
  });
});

describe("refusals", () => {
  test("unknown kinds are named together with the known ones", () => {
    expectRefusal(
      { ...BPE, "tokenizer.ggml.pre": "tekken" },
      "model-unsupported",
      /"tekken".*smollm.*qwen2/,
    );
    expectRefusal(
      { ...BPE, "tokenizer.ggml.model": "t5" },
      "model-unsupported",
      /"t5".*gpt2 and llama/,
    );
  });

  const count = (BPE["tokenizer.ggml.tokens"] as string[]).length;
  test.each([
    ["no model", { "tokenizer.ggml.model": undefined }, /tokenizer.ggml.model is missing/],
    ["no tokens", { "tokenizer.ggml.tokens": undefined }, /tokens is missing/],
    ["tokens of another type", { "tokenizer.ggml.tokens": [1, 2] }, /array of strings/],
    ["no merges", { "tokenizer.ggml.merges": undefined }, /merges is missing/],
    ["a merge without a space", { "tokenizer.ggml.merges": ["a b", "ab"] }, /Merge 1 .*"ab"/],
    ["too few types", { "tokenizer.ggml.token_type": [1, 1] }, /2 entries for \d+ tokens/],
    [
      "a type out of range",
      { "tokenizer.ggml.token_type": new Int32Array(count).fill(9) },
      /types are 0 to 6/,
    ],
    [
      "bos out of range",
      { "tokenizer.ggml.bos_token_id": count },
      /bos_token_id is \d+; the vocabulary has/,
    ],
    ["eos of another type", { "tokenizer.ggml.eos_token_id": "2" }, /eos_token_id is 2/],
    ["a flag of another type", { "tokenizer.ggml.add_bos_token": 1 }, /must be a boolean/],
  ])("%s", (_, change, message) => {
    expectRefusal({ ...BPE, ...change }, "model-invalid", message);
  });

  test("SentencePiece without scores, with too few, or with NaN", () => {
    const size = (SPM["tokenizer.ggml.tokens"] as string[]).length;
    const key = "tokenizer.ggml.scores";
    expectRefusal({ ...SPM, [key]: undefined }, "model-invalid", /scores is missing/);
    expectRefusal({ ...SPM, [key]: new Float32Array(3) }, "model-invalid", /3 entries for/);
    expectRefusal(
      { ...SPM, [key]: new Float32Array(size).fill(Number.NaN) },
      "model-invalid",
      /not a number/,
    );
  });

  test("SentencePiece without byte tokens", () => {
    const tokens = (SPM["tokenizer.ggml.tokens"] as string[]).map((text) =>
      text.replace("<0x", "<0y"),
    );
    expectRefusal(
      { ...SPM, "tokenizer.ggml.tokens": tokens },
      "model-unsupported",
      /no byte token <0x00>/,
    );
  });
});
