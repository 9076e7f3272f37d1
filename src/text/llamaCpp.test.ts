/** @file Tokens of nasty strings against llama.cpp's. Fixtures: e2e/oracle/tokenizer.mjs. */
import { existsSync, openAsBlob, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { nastyStrings } from "../../e2e/oracle/nastyStrings.mjs";
import { createBlobSource } from "../weights/blobSource.ts";
import { parseGguf } from "../weights/gguf.ts";
import { createTokenizer } from "./tokenizer.ts";

interface Case {
  readonly name: string;
  readonly vocabulary: string;
  readonly pre?: string;
  readonly seed: number;
}

const fixture = (name: string) => new URL(`./fixtures/${name}`, import.meta.url);
const CASES: readonly Case[] = JSON.parse(readFileSync(fixture("cases.json"), "utf8"));
const SMOLLM2 = new URL("../../models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url);
const NUM_STRINGS = 3000;

/** Reads what `packIds` of the oracle wrote. */
function readIds(name: string): { plain: number[]; special: number[] }[] {
  const bytes = readFileSync(fixture(`${name}.ids`));
  let at = 0;
  const next = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  const take = (count: number) => Array.from({ length: count }, next);
  const results = [];
  while (at < bytes.length) {
    const plain = take(next());
    const count = next();
    results.push({ plain, special: count === 0 ? plain : take(count - 1) });
  }
  return results;
}

async function readMetadata({ vocabulary, pre }: Case): Promise<ReadonlyMap<string, unknown>> {
  if (vocabulary === "smollm2") {
    return (await parseGguf(createBlobSource(await openAsBlob(SMOLLM2)))).metadata;
  }
  const fields = JSON.parse(readFileSync(fixture(`${vocabulary}.json`), "utf8"));
  return new Map(Object.entries({ ...fields, "tokenizer.ggml.pre": pre ?? "default" }));
}

describe.each(CASES)("$name", (testCase) => {
  const isMissing = testCase.vocabulary === "smollm2" && !existsSync(SMOLLM2);

  test.skipIf(isMissing)(
    `equals llama.cpp on ${NUM_STRINGS} strings${isMissing ? " (models/ has no SmolLM2)" : ""}`,
    async () => {
      const tokenizer = createTokenizer(await readMetadata(testCase));
      const strings = nastyStrings(testCase.seed, NUM_STRINGS);
      const expected = readIds(testCase.name);
      expect(expected).toHaveLength(NUM_STRINGS);
      const mismatches: unknown[] = [];
      for (const [i, text] of strings.entries()) {
        for (const mode of ["plain", "special"] as const) {
          const found = tokenizer.encode(text, { specialTokens: mode === "special" });
          if (String(found) !== String(expected[i]![mode])) {
            const show = (ids: number[]) => ids.map((id) => tokenizer.tokenText(id));
            mismatches.push({
              i,
              mode,
              text,
              found: show(found),
              expected: show(expected[i]![mode]),
            });
          }
        }
      }
      expect(mismatches).toEqual([]);
    },
  );
});
